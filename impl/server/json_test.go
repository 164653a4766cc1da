package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// readTwice compares what encoding/json makes of a body with another reading, which marks members that are given
// twice.
func readTwice(body []byte) error {
	var last any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&last); err != nil {
		return err
	}
	decoder = json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	first, err := readFirst(decoder)
	if err != nil {
		return err
	}
	if decoder.More() {
		return fmt.Errorf("something follows")
	}
	if !reflect.DeepEqual(first, last) {
		return fmt.Errorf("read as %v and as %v", first, last)
	}
	return nil
}

func readFirst(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		values := []any{}
		for decoder.More() {
			value, err := readFirst(decoder)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		_, err = decoder.Token()
		return values, err
	case json.Delim('{'):
		members := map[string]any{}
		for decoder.More() {
			name, err := decoder.Token()
			if err != nil {
				return nil, err
			}
			value, err := readFirst(decoder)
			if err != nil {
				return nil, err
			}
			if before, twice := members[name.(string)]; twice {
				value = []struct{ before any }{{before}} // encoding/json never makes such a value
			}
			members[name.(string)] = value
		}
		_, err = decoder.Token()
		return members, err
	}
	return token, nil
}

// FuzzJSON: an accepted body means the same to every reader. A body that is refused for a member given twice
// does not.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":1}`, `{"a":1,"a":2}`, `{"a":{"a":1},"b":[{"a":1}]}`, `[[]]`, `"x"`, `1`, ``, `{} {}`, "{\"a\":\"\xff\"}", `{"a":"{[\""}`,
		`{":":":","a\\":1,"\":":2}`, `{"a":{"b":1,"c":2},"a":3}`, `[{"a":[{"b":1,"b":1}]}]`, `{"\ud800":1,"\ud801":2}`, `{"a":1e999}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		switch value, err := readJSON(body); err {
		case nil:
			if again, encodingErr := json.Marshal(value); encodingErr != nil || !json.Valid(again) {
				t.Errorf("%q is read as %v", body, value)
			}
			if err := readTwice(body); err != nil {
				t.Errorf("%q: %v", body, err)
			}
		case errTwice:
			if readTwice(body) == nil {
				t.Errorf("%q is refused", body)
			}
		}
	})
}

func TestReadJSON(t *testing.T) {
	for body, want := range map[string]error{
		`{"a":1,"b":{"a":[{"a":1},{"a":2}]}}`:             nil,
		`{"a":"b","b":"a"}`:                               nil,
		`["a","a"]`:                                       nil,
		`{"a":["x","x"],"x":1}`:                           nil,
		`{":":":","\":":":"}`:                             nil,
		`{"a":1e400}`:                                     nil,
		`{"a":1,"a":2}`:                                   errTwice,
		`{"a":1,"a":1}`:                                   errTwice,
		`{"a":1,"\u0061":2}`:                              errTwice,
		`{"a":{"x":1,"x":2}}`:                             errTwice,
		`{"a":{"x":1,"y":2},"a":{"x":1,"y":2}}`:           errTwice,
		`[{"a":1,"b":[],"a":{}}]`:                         errTwice,
		`{"a":"\"","b":"[[[[[[[[[[[[[[[[[[[[[[[["}`:       nil,
		strings.Repeat("[", 32) + strings.Repeat("]", 32): nil,
		strings.Repeat("[", 33) + strings.Repeat("]", 33): errTooDeep,
		`{`:        errNotOneValue,
		`{} {}`:    errNotOneValue,
		`{}}`:      errNotOneValue,
		`{"a"::1}`: errNotOneValue,
		``:         errNotOneValue,
		" \n":      errNotOneValue,
		"\"\xc3\"": errNotUTF8,
	} {
		if _, got := readJSON([]byte(body)); got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
}
