package supabase

import "io"

// shallow reads a JSON text and leaves out what lies inside of its members: of {"a":{"b":1},"c":[2]} it
// leaves {"a":{},"c":[]}. So an answer takes no more memory for metadata of megabytes. It is no
// parser: of a text that is no JSON it leaves some of it, which is no JSON either, or a member that
// was none.
type shallow struct {
	io.ReadCloser
	depth             int
	inString, escaped bool
}

func (s *shallow) Read(p []byte) (int, error) {
	for {
		n, err := s.ReadCloser.Read(p)
		kept := p[:0]
		for _, b := range p[:n] {
			outer := s.depth < 2
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
