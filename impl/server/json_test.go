package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
)

// readTwice compares what encoding/json makes of a body with a reading that takes the first of
// each member instead of the last: they differ where a member is given twice.
func readTwice(body []byte) error {
	var last any
	if err := json.Unmarshal(body, &last); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
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
			if _, twice := members[name.(string)]; !twice {
				members[name.(string)] = value
			} else {
				members[name.(string)+" again"] = value
			}
		}
		_, err = decoder.Token()
		return members, err
	}
	return token, nil
}

func TestCheckJSON(t *testing.T) {
	for body, want := range map[string]error{
		`{"a":1,"b":{"a":[{"a":1},{"a":2}]}}`:       nil,
		`{"a":"b","b":"a"}`:                         nil,
		`["a","a"]`:                                 nil,
		`{"a":["x","x"],"x":1}`:                     nil,
		`{"a":1,"a":2}`:                             errTwice,
		`{"a":1,"\u0061":2}`:                        errTwice,
		`{"a":{"x":1,"x":2}}`:                       errTwice,
		`[{"a":1,"b":[],"a":{}}]`:                   errTwice,
		`{"a":"\"","b":"[[[[[[[[[[[[[[[[[[[[[[[["}`: nil,
		`{`:        errNotOneValue,
		`{} {}`:    errNotOneValue,
		``:         errNotOneValue,
		"\"\xc3\"": errNotUTF8,
	} {
		if got := checkJSON([]byte(body)); got != want {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
}
