package supabase

import (
	"errors"
	"io"
	"regexp"
)

// maxField bounds the strings of user_metadata that are kept: a language tag has 35 characters at most (RFC
// 5646, section 4.4.1), and CheckField refuses a longer name.
const maxField = 64

// CheckField judges USER_LANGUAGE_FIELD.
func CheckField(name string) error {
	if !fieldName.MatchString(name) {
		return errors.New("must be the name of one field of user_metadata, like locale: letters, digits, _ and -, at most 63")
	}
	return nil
}

var (
	fieldName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
	languageTag = regexp.MustCompile(`^[A-Za-z0-9_-]{2,35}$`)
)

// shallow reads a JSON text without the contents of its members: {"a":{"b":1},"c":[2]} becomes
// {"a":{},"c":[]}. That bounds the memory for an answer with megabytes of metadata. It keeps one short string
// of the contents: the value of field in user_metadata.
//
// It is no parser. A text that is not JSON may come out as JSON, with a member that was none.
type shallow struct {
	io.ReadCloser
	depth             int
	inString, escaped bool

	field string // the member of user_metadata to keep; empty for none
	value string // the value of field, if it is a string that could be a language tag

	text     [maxField]byte // the last string in the answer itself or in user_metadata
	length   int            // of text; beyond maxField it was longer
	awaits   bool           // a colon came last, so a value follows
	metadata bool           // user_metadata is being read
	inside   bool           // at depth 2: inside of user_metadata
	wanted   bool           // field is being read
}

func (s *shallow) Read(p []byte) (int, error) {
	for {
		n, err := s.ReadCloser.Read(p)
		kept := p[:0]
		for _, b := range p[:n] {
			outer := s.depth < 2
			s.keep(b)
			switch {
			case s.escaped:
				s.escaped = false
			case s.inString:
				s.escaped, s.inString = b == '\\', b != '"'
			case b == '"':
				s.inString = true
			case b == '{', b == '[':
				s.depth++
			case b == '}', b == ']':
				s.depth--
				outer = s.depth < 2
			}
			if outer {
				kept = append(kept, b)
			}
		}
		if len(kept) > 0 || err != nil || len(p) == 0 {
			return len(kept), err
		}
	}
}

// keep follows the strings, before Read changes depth, inString and escaped for this byte.
func (s *shallow) keep(b byte) {
	if s.field == "" || s.depth != 1 && (s.depth != 2 || !s.inside) {
		return
	}
	switch {
	case s.inString && (s.escaped || b != '"'):
		if s.length < maxField {
			s.text[s.length] = b
		}
		s.length++
	case s.inString: // its end
		if s.depth == 2 && s.wanted && s.awaits && languageTag.Match(s.last()) {
			s.value = string(s.last())
		}
	case b == '"':
		s.length = 0
	case b == ':' && s.depth == 1:
		s.awaits, s.metadata = true, string(s.last()) == "user_metadata"
	case b == ':':
		s.awaits, s.wanted = true, string(s.last()) == s.field
	case b == '{' && s.depth == 1:
		s.awaits, s.inside = false, s.metadata
	case b == '{', b == '[', b == ',':
		s.awaits = false
	case b == '}' && s.depth == 2:
		s.inside = false
	}
}

// last returns the last string; empty if it was longer than maxField.
func (s *shallow) last() []byte {
	if s.length > maxField {
		return nil
	}
	return s.text[:s.length]
}
