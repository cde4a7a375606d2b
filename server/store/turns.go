package store

// turns holds changes that wait, by the organization that their callers act in.
// Organizations take turns: whoever takes n changes gets one of each organization,
// then one more of each, so that one which makes many waits for itself. The changes of
// an organization keep their order. The zero turns are empty.
type turns struct {
	// order holds the organizations that wait, the next to take its turn first.
	order   []string
	changes map[string][]*change
}

// add adds a change behind those of its organization.
func (t *turns) add(c *change) {
	if t.changes == nil {
		t.changes = make(map[string][]*change)
	}
	organization := c.turn()
	if len(t.changes[organization]) == 0 {
		t.order = append(t.order, organization)
	}
	t.changes[organization] = append(t.changes[organization], c)
}

// turn names whose turn a change is: the organization's or, of one in no organization,
// the caller's.
func (c *change) turn() string {
	if c.by.Organization == "" {
		return "\x00" + c.by.Actor.ID // No organization has such a name.
	}
	return c.by.Organization
}

// take takes up to n changes out, in turns. One of many rows is taken alone.
func (t *turns) take(n int) []*change {
	var taken []*change
	for len(taken) < n && len(t.order) > 0 {
		organization := t.order[0]
		waiting := t.changes[organization]
		many := waiting[0].many
		if many && len(taken) > 0 {
			break // It is the first of the next.
		}
		taken = append(taken, waiting[0])
		t.order = t.order[1:]
		if len(waiting) > 1 {
			t.changes[organization] = waiting[1:]
			t.order = append(t.order, organization)
		} else {
			delete(t.changes, organization)
		}
		if many {
			break
		}
	}
	return taken
}

// first returns the change that is taken next, nil where none waits.
func (t *turns) first() *change {
	if len(t.order) == 0 {
		return nil
	}
	return t.changes[t.order[0]][0]
}

// len returns how many changes wait.
func (t *turns) len() int {
	n := 0
	for _, waiting := range t.changes {
		n += len(waiting)
	}
	return n
}
