package json

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists of a body may be nested.
const maxDepth = 32

// A scanner reads JSON tokens (RFC 8259) from data. What it returns lies in
// data or in text and is valid until the next token.
type scanner struct {
	data  []byte
	pos   int
	depth int
	text  []byte // a string that had escapes
}

// fail makes the error for the place where the scanner stands.
func (s *scanner) fail(problem string) error {
	before := s.data[:min(s.pos, len(s.data))]
	if s.pos >= len(s.data) {
		problem = "unexpected end"
	}
	return &SyntaxError{
		Offset:  len(before),
		Line:    1 + bytes.Count(before, []byte{'\n'}),
		Column:  len(before) - bytes.LastIndexByte(before, '\n'),
		Problem: problem,
	}
}

// next skips white space and returns the byte that follows without taking it,
// 0 at the end.
func (s *scanner) next() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// open takes the '{' or '[' where the scanner stands.
func (s *scanner) open() error {
	if s.depth++; s.depth > maxDepth {
		return s.fail("nested too deep")
	}
	s.pos++
	return nil
}

// more reports whether another element follows in the object or list that end
// closes, and takes the comma before it, or end. first says that none was read
// yet.
func (s *scanner) more(end byte, first bool) (bool, error) {
	switch c := s.next(); {
	case c == end:
		s.pos++
		s.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		if s.next() == end {
			return false, s.fail("a comma without an element after it")
		}
		return true, nil
	}
	return false, s.fail("expected a comma or " + string(rune(end)))
}

// name takes an object's next name and the colon behind it.
func (s *scanner) name() ([]byte, error) {
	if s.next() != '"' {
		return nil, s.fail("expected a name in double quotes")
	}
	name, err := s.str()
	if err != nil {
		return nil, err
	}
	if s.next() != ':' {
		return nil, s.fail("expected a colon")
	}
	s.pos++
	return name, nil
}

// str takes the string whose quote the scanner stands before and returns what
// it means. All of data is known to be UTF-8.
func (s *scanner) str() ([]byte, error) {
	s.pos++
	start := s.pos
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1], nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.fail("a control character in a string")
		}
	}
	return nil, s.fail("unexpected end")
}

// escaped goes on with a string that began at start, from its first escape.
func (s *scanner) escaped(start int) ([]byte, error) {
	s.text = append(s.text[:0], s.data[start:s.pos]...)
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.text, nil
		case c < ' ':
			return nil, s.fail("a control character in a string")
		case c != '\\':
			s.text = append(s.text, c)
			s.pos++
			continue
		}
		r, ok := s.escape()
		if !ok {
			return nil, s.fail("an invalid escape in a string")
		}
		s.text = utf8.AppendRune(s.text, r)
	}
	return nil, s.fail("unexpected end")
}

// escape takes one escape. A half of a surrogate pair is none.
func (s *scanner) escape() (rune, bool) {
	if s.pos+1 >= len(s.data) {
		s.pos = len(s.data)
		return 0, false
	}
	c := s.data[s.pos+1]
	if c == 'u' {
		r, ok := s.hex4()
		if !ok || !utf16.IsSurrogate(r) {
			return r, ok
		}
		low, ok := s.hex4()
		r = utf16.DecodeRune(r, low)
		return r, ok && r != utf8.RuneError
	}
	i := bytes.IndexByte([]byte(`"\/bfnrt`), c)
	if i < 0 {
		return 0, false
	}
	s.pos += 2
	return rune("\"\\/\b\f\n\r\t"[i]), true
}

// hex4 takes \uXXXX.
func (s *scanner) hex4() (rune, bool) {
	if len(s.data)-s.pos < 6 || s.data[s.pos] != '\\' || s.data[s.pos+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s.data[s.pos+2 : s.pos+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	s.pos += 6
	return r, true
}

// word takes one of null, true and false.
func (s *scanner) word(want string) error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(want)) {
		return s.fail("expected a value")
	}
	s.pos += len(want)
	return nil
}

// number takes a number and returns it as it stands there.
func (s *scanner) number() ([]byte, error) {
	start := s.pos
	if s.at() == '-' {
		s.pos++
	}
	zero := s.at() == '0'
	if n := s.digits(); n == 0 || zero && n > 1 {
		return nil, s.fail("expected a value")
	}
	if s.at() == '.' {
		s.pos++
		if s.digits() == 0 {
			return nil, s.fail("a number without digits after its point")
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.at(); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return nil, s.fail("a number without digits in its exponent")
		}
	}
	return s.data[start:s.pos], nil
}

func (s *scanner) at() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) digits() int {
	start := s.pos
	for c := s.at(); '0' <= c && c <= '9'; c = s.at() {
		s.pos++
	}
	return s.pos - start
}
