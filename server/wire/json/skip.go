package json

// skip takes a value of any kind. It is held to the same grammar as one that
// is wanted, unique names included.
func (s *scanner) skip() error {
	var err error
	switch c := s.next(); c {
	case '{':
		err = s.skipObject()
	case '[':
		err = s.skipList()
	case '"':
		_, err = s.str()
	case 'n':
		err = s.word("null")
	case 't':
		err = s.word("true")
	case 'f':
		err = s.word("false")
	default:
		_, err = s.number()
	}
	return err
}

func (s *scanner) skipObject() error {
	if err := s.open(); err != nil {
		return err
	}
	var seen names
	for first := true; ; first = false {
		more, err := s.more('}', first)
		if !more || err != nil {
			return err
		}
		name, err := s.name()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return s.fail("a name that was there before")
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

func (s *scanner) skipList() error {
	if err := s.open(); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(']', first)
		if !more || err != nil {
			return err
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

// names is a set of an object's names.
type names map[string]struct{}

// add reports false when name was in the set.
func (n *names) add(name []byte) bool {
	if _, ok := (*n)[string(name)]; ok {
		return false
	}
	if *n == nil {
		*n = make(names)
	}
	(*n)[string(name)] = struct{}{}
	return true
}
