package chaostest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// staleness is within what time a change that one replica has answered is in force on
// every other.
const staleness = time.Second

// keyState is the register that a key is. Its zero value is a key that is not there.
type keyState struct {
	exists, disabled, revoked, deleted bool
	secret, previous                   int // their numbers; previous is none where it is secret
}

// verification returns the code of a verification of a secret.
func (s keyState) verification(secret int) string {
	switch {
	case !s.exists || s.deleted || secret != s.secret && secret != s.previous:
		return "not_found"
	case s.revoked:
		return "revoked"
	case s.disabled:
		return "disabled"
	}
	return "valid"
}

// read returns the state of the key as it is read, and false where there is none.
func (s keyState) read() (string, bool) {
	switch {
	case !s.exists || s.deleted:
		return "", false
	case s.revoked:
		return "revoked", true
	case s.disabled:
		return "disabled", true
	}
	return "active", true
}

// apply returns the state after a change, or false where the state forbids it.
func (s keyState) apply(o *operation) (keyState, bool) {
	if o.Kind == "create" {
		return keyState{exists: true}, !s.exists
	}
	if !s.exists || s.deleted {
		return s, false
	}
	switch o.Kind {
	case "delete":
		s.deleted = true
		return s, true
	case "revoke":
		s.revoked = true
		return s, true
	}
	if s.revoked {
		return s, false
	}
	switch o.Kind {
	case "update":
		s.disabled = !o.Enabled
	case "rotate":
		s.previous = o.Secret
		if o.Overlap {
			s.previous = s.secret
		}
		s.secret = o.Secret
	}
	return s, true
}

// keyModel is the register, for porcupine. Its operations are of one key.
var keyModel = porcupine.Model{
	Init: func() any { return keyState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, o := state.(keyState), input.(*operation)
		switch o.Kind {
		case "verify":
			return s.verification(o.Secret) == o.Code, s
		case "get":
			code, found := s.read()
			return found == (o.Outcome == answered) && (!found || code == o.Code), s
		}
		next, allowed := s.apply(o)
		switch o.Outcome {
		case answered:
			return allowed, next
		case refused:
			return !allowed, s
		default:
			if allowed {
				return true, next
			}
			return true, s
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(*operation).describe() },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

// describe returns an operation in words, for a page of porcupine.
func (o *operation) describe() string {
	text := fmt.Sprintf("%c %s", 'a'+o.Replica, o.Kind)
	switch o.Kind {
	case "verify":
		return fmt.Sprintf("%s %d: %s", text, o.Secret, o.Code)
	case "update":
		text += fmt.Sprintf(" enabled=%t", o.Enabled)
	case "rotate":
		text += fmt.Sprintf(" to %d overlap=%t", o.Secret, o.Overlap)
	case "spend":
		return fmt.Sprintf("%s %d: %s", text, o.Cost, o.Code)
	case "append":
		return fmt.Sprintf("%s %s: %d", text, o.Label, o.Cost)
	}
	return fmt.Sprintf("%s: %s %s", text, o.Outcome, o.Code)
}

// keyPartition is what porcupine checks in one go.
type keyPartition struct {
	name       string
	operations []porcupine.Operation
}

// keyPartitions divides a history of keys. For each key there is what was changed and
// read in storage, where each change is in force as soon as it is answered; and for each
// replica and secret what was changed and verified, where a change that another replica
// has answered may take staleness longer. A creation never does: there is nothing stale
// that could be known. A replica remembers each secret by itself, so it may know of a
// change for one and not yet for the other.
func keyPartitions(history []*operation, replicas int) (parts []keyPartition) {
	byKey := make(map[string][]*operation)
	var ids []string
	for _, o := range history {
		switch o.Kind {
		case "create", "update", "rotate", "revoke", "delete", "get", "verify":
		default:
			continue
		}
		if o.Key == "" {
			continue // A creation without an answer is of a key that nobody knows.
		}
		if o.Outcome == unknown && (o.Kind == "verify" || o.Kind == "get") {
			continue // It says nothing.
		}
		if byKey[o.Key] == nil {
			ids = append(ids, o.Key)
		}
		byKey[o.Key] = append(byKey[o.Key], o)
	}
	for _, id := range ids {
		stored := keyPartition{name: "key " + id + " in storage"}
		for _, o := range byKey[id] {
			if o.Kind != "verify" {
				stored.operations = append(stored.operations, interval(o, o.Call, o.Return))
			}
		}
		parts = append(parts, stored)
		for r := range replicas {
			parts = append(parts, seenParts(id, byKey[id], r)...)
		}
	}
	return parts
}

// seenParts returns the parts of a key on a replica, one for each secret that was
// verified there.
func seenParts(id string, history []*operation, r int) (parts []keyPartition) {
	bySecret := make(map[int]*keyPartition)
	var changes []porcupine.Operation
	for _, o := range history {
		switch {
		case o.Kind == "get", o.Kind == "verify" && o.Replica != r:
		case o.Kind == "verify":
			part := bySecret[o.Secret]
			if part == nil {
				part = &keyPartition{name: fmt.Sprintf("key %s, secret %d on replica %c", id, o.Secret, 'a'+r)}
				bySecret[o.Secret] = part
			}
			part.operations = append(part.operations, interval(o, o.Call, o.Return))
		case o.Outcome == refused: // It rests on what storage says, not on what the replica knows.
		case o.Replica != r && o.Kind != "create" && o.Return != forever:
			changes = append(changes, interval(o, o.Call, o.Return+staleness))
		default:
			changes = append(changes, interval(o, o.Call, o.Return))
		}
	}
	for _, number := range slices.Sorted(maps.Keys(bySecret)) {
		part := bySecret[number]
		part.operations = append(part.operations, changes...)
		parts = append(parts, *part)
	}
	return parts
}

func interval(o *operation, call, end time.Duration) porcupine.Operation {
	return porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(call), Return: int64(end)}
}

// checkKeys holds a history against the register.
func checkKeys(history []*operation, replicas int, page pages) (faults []string) {
	for _, part := range keyPartitions(history, replicas) {
		if fault := page.check(keyModel, part); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}

// pages is the folder that the pages of porcupine are written to; empty for none.
type pages string

// porcupineTime bounds the check of one partition.
const porcupineTime = 10 * time.Second

// check returns what is wrong with a partition, or "".
func (p pages) check(model porcupine.Model, part keyPartition) string {
	slices.SortStableFunc(part.operations, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	result := porcupine.CheckOperationsTimeout(model, part.operations, porcupineTime)
	switch result {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("%s: %d operations are not checked within %v", part.name, len(part.operations), porcupineTime)
	case porcupine.Illegal:
	}
	return fmt.Sprintf("%s: no order of its %d operations explains what was answered%s", part.name, len(part.operations), p.draw(model, part))
}

// draw writes a page that shows a partition, and returns where it is.
func (p pages) draw(model porcupine.Model, part keyPartition) string {
	if p == "" {
		return ""
	}
	_, info := porcupine.CheckOperationsVerbose(model, part.operations, porcupineTime)
	path := fmt.Sprintf("%s/porcupine-%s.html", p, fileName(part.name))
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		return ": " + err.Error()
	}
	return "; see " + path
}

func fileName(text string) string {
	name := []byte(text)
	for i, c := range name {
		if c == ' ' || c == '/' {
			name[i] = '-'
		}
	}
	return string(name)
}
