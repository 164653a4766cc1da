package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// maxDepth is far more than any request needs, and far less than what a decoder would spend
// memory on.
const maxDepth = 32

// What makes a body unfit to be judged by a schema. Every reader of it has to see the same
// value, and encoding/json lets each of these pass or corrects them silently (SECURITY.md, promise 4).
var (
	errNotUTF8     = errors.New("Send the body in UTF-8.")
	errNotOneValue = errors.New("Send exactly one JSON value.")
	errTwice       = errors.New("Send no member twice.")
	errTooDeep     = errors.New("Nest no deeper than 32 levels.")
)

// readJSON decodes a body that is exactly one JSON value in UTF-8 without a member given twice in
// any of its objects. Of members of one name the decoder keeps one, so that a body has more of them
// than its value if, and only if, there are such.
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

// survey counts the members and the levels of a body that is valid JSON: each member has the one
// colon outside of strings that follows its name. Of anything else the depth is an upper bound.
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
