// Package shell derives from the model of a command line what shells and readers want
// of it: the completion of commands, flags and values, and manual pages.
//
// A shell is given a short script that asks the program itself at each TAB. So what is
// completed is what the program understands, and ids are those that the server has.
package shell

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// A Candidate is a word that can stand where the cursor is.
type Candidate struct{ Word, Help string }

// Complete returns the words that can stand at the end of a command line: words are
// what was typed after the program's name, the last of them begun or empty. values
// returns those of a kind, which the tag complete names, that begin with a text.
func Complete(app *kong.Application, words []string, values func(kind, begun string) []Candidate) []Candidate {
	if len(words) == 0 {
		words = []string{""}
	}
	begun := words[len(words)-1]
	at, seen := walk(app, words[:len(words)-1])
	if at == nil {
		return nil
	}
	if at.open != nil {
		return matching(valuesOf(at.open.Value, begun, values), begun)
	}
	if name, value, ok := strings.Cut(begun, "="); ok && strings.HasPrefix(name, "--") {
		flag := at.flag(strings.TrimPrefix(name, "--"))
		if flag == nil {
			return nil
		}
		found := matching(valuesOf(flag.Value, value, values), value)
		for i := range found {
			found[i].Word = name + "=" + found[i].Word
		}
		return found
	}
	if strings.HasPrefix(begun, "-") && !at.onlyArguments {
		return matching(at.flags(seen), begun)
	}
	var found []Candidate
	for _, child := range at.node.Children {
		if !child.Hidden {
			found = append(found, Candidate{child.Name, child.Help})
		}
	}
	if n := len(at.node.Positional); n > 0 {
		argument := at.node.Positional[min(at.arguments, n-1)]
		if at.arguments < n || argument.IsCumulative() {
			found = append(found, valuesOf(argument, begun, values)...)
		}
	}
	return matching(found, begun)
}

// place is where in the model a command line has come to.
type place struct {
	node          *kong.Node
	open          *kong.Flag // whose value comes next
	arguments     int        // how many there were
	onlyArguments bool       // after --
}

// walk follows the words that are whole. It returns nil where they are not understood.
func walk(app *kong.Application, words []string) (at *place, seen []string) {
	at = &place{node: app.Node}
	for _, word := range words {
		switch {
		case at.open != nil:
			at.open = nil
		case at.onlyArguments:
			at.arguments++
		case word == "--":
			at.onlyArguments = true
		case strings.HasPrefix(word, "--"):
			name, _, hasValue := strings.Cut(strings.TrimPrefix(word, "--"), "=")
			flag := at.flag(name)
			if flag == nil {
				return nil, nil
			}
			seen = append(seen, flag.Name)
			if !hasValue && !flag.IsBool() {
				at.open = flag
			}
		case strings.HasPrefix(word, "-") && word != "-":
			flag := at.short(rune(word[1]))
			if flag == nil {
				return nil, nil
			}
			seen = append(seen, flag.Name)
			if len(word) == 2 && !flag.IsBool() {
				at.open = flag
			}
		default:
			if child := childOf(at.node, word); child != nil {
				at.node = child
			} else {
				at.arguments++
			}
		}
	}
	return at, seen
}

func childOf(node *kong.Node, word string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == word || slices.Contains(child.Aliases, word) {
			return child
		}
	}
	return nil
}

// all returns the flags of the command and of those above it.
func (p *place) all() (flags []*kong.Flag) {
	for _, group := range p.node.AllFlags(true) {
		flags = append(flags, group...)
	}
	return flags
}

func (p *place) flag(name string) *kong.Flag {
	for _, flag := range p.all() {
		if flag.Name == name || slices.Contains(flag.Aliases, name) || flag.Tag.Negatable != "" && "no-"+flag.Name == name {
			return flag
		}
	}
	return nil
}

func (p *place) short(name rune) *kong.Flag {
	for _, flag := range p.all() {
		if flag.Short == name {
			return flag
		}
	}
	return nil
}

// flags returns those that can be given, without those that were.
func (p *place) flags(seen []string) (found []Candidate) {
	for _, flag := range p.all() {
		if slices.Contains(seen, flag.Name) && !flag.IsCumulative() {
			continue
		}
		found = append(found, Candidate{"--" + flag.Name, flag.Help})
		if flag.Tag.Negatable != "" {
			found = append(found, Candidate{"--no-" + flag.Name, flag.Help})
		}
	}
	return found
}

// valuesOf returns the values that a flag or an argument can have.
func valuesOf(value *kong.Value, begun string, values func(kind, begun string) []Candidate) (found []Candidate) {
	prefix := ""
	if value.IsSlice() && value.Tag.Sep == ',' {
		// What stands before the last comma stays.
		if i := strings.LastIndexByte(begun, ','); i >= 0 {
			prefix, begun = begun[:i+1], begun[i+1:]
		}
	}
	for _, word := range value.EnumSlice() {
		if word != "" {
			found = append(found, Candidate{prefix + word, ""})
		}
	}
	if kind := value.Tag.Get("complete"); kind != "" {
		for _, c := range values(kind, begun) {
			found = append(found, Candidate{prefix + c.Word, c.Help})
		}
	}
	return found
}

func matching(all []Candidate, begun string) []Candidate {
	return slices.DeleteFunc(all, func(c Candidate) bool { return !strings.HasPrefix(c.Word, begun) })
}
