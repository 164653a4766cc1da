package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a body. No request needs as many levels, and a decoder's memory grows with
// them.
const maxDepth = 32

// The reasons to refuse a body before its schema is judged. All readers of a body must see the same value
// (SECURITY.md, promise 4), and encoding/json accepts or silently corrects each of these.
var (
	errNotUTF8     = errors.New("Send the body in UTF-8.")
	errNotOneValue = errors.New("Send exactly one JSON value.")
	errTwice       = errors.New("Send no member twice.")
	errTooDeep     = errors.New("Nest no deeper than 32 levels.")
)

// readJSON decodes a body that is exactly one JSON value in UTF-8, in which no object has a member twice. The
// decoder keeps one of two members of the same name, so readJSON compares the number of members in the text
// with the number in the value.
func readJSON(body []byte) (value any, err error) {
	if !utf8.Valid(body) {
		return nil, errNotUTF8
	}
	members, depth := survey(body)
	if depth > maxDepth {
		return nil, errTooDeep
	}
	err = json.Unmarshal(body, &value)
	if tooLarge := new(json.UnmarshalTypeError); errors.As(err, &tooLarge) { // 1e400 is a number, if none of float64's
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		err = decoder.Decode(&value)
	}
	if err != nil {
		return nil, errNotOneValue
	}
	if countMembers(value) != members {
		return nil, errTwice
	}
	return value, nil
}

// survey counts the members and the levels of a body that is valid JSON: each member has exactly one colon
// outside of strings. For any other text the depth is an upper bound.
func survey(body []byte) (members, depth int) {
	level, inString, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == ':':
			members++
		case c == '{', c == '[':
			level++
			depth = max(depth, level)
		case c == '}', c == ']':
			level--
		}
	}
	return members, depth
}

func countMembers(value any) (members int) {
	switch value := value.(type) {
	case map[string]any:
		members = len(value)
		for _, member := range value {
			members += countMembers(member)
		}
	case []any:
		for _, element := range value {
			members += countMembers(element)
		}
	}
	return members
}
