package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxDepth is far more than any request needs, and far less than what a decoder would spend
// memory on.
const maxDepth = 32

// What makes a body unfit to be judged by a schema. Every reader of it has to see the same
// value, and encoding/json lets each of these pass or mends them silently (H4).
var (
	errNotUTF8     = errors.New("Send the body in UTF-8.")
	errNotOneValue = errors.New("Send exactly one JSON value.")
	errTwice       = errors.New("Send no member twice.")
	errTooDeep     = errors.New("Nest no deeper than 32 levels.")
)

// checkJSON says whether a body is exactly one JSON value in UTF-8 without a member given
// twice in any of its objects.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return errNotUTF8
	}
	if deep(body) {
		return errTooDeep
	}
	if !json.Valid(body) {
		return errNotOneValue
	}
	if !bytes.ContainsRune(body, '{') {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // 1e400 is a number, if too large a one for a float64
	return checkMembers(decoder)
}

// deep counts brackets outside of strings: an upper bound of the depth of anything valid.
func deep(body []byte) bool {
	depth, inString, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == '{', c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// checkMembers reads one valid value and refuses a name that occurs twice in one object.
func checkMembers(decoder *json.Decoder) error {
	type object struct {
		names    map[string]bool // nil for an array
		nextName bool
	}
	var open []object
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errNotOneValue
		}
		if in := len(open) - 1; in >= 0 && open[in].names != nil && token != json.Delim('}') {
			if name, ok := token.(string); ok && open[in].nextName {
				if open[in].names[name] {
					return errTwice
				}
				open[in].names[name] = true
				open[in].nextName = false
				continue
			}
			open[in].nextName = true // after this value
		}
		switch token {
		case json.Delim('{'):
			open = append(open, object{names: make(map[string]bool, 4), nextName: true})
		case json.Delim('['):
			open = append(open, object{})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
}
