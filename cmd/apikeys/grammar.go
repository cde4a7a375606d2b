package main

import (
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"
)

// wholeGrammar are the commands that look at all others.
var wholeGrammar = []string{"help", "man", "completion", "__complete", "config"}

// onlyNamed leaves the commands out of the grammar that args do not name: to build all of
// them takes longer than most calls, and a shell waits for it at each TAB. Where args name
// no command, nothing is left out, so that whoever mistypes one is told of all.
func onlyNamed(args []string) kong.Option {
	var left []string
	if len(args) == 0 || slices.Contains(wholeGrammar, args[0]) {
		return kong.IgnoreFields()
	}
	for at := reflect.TypeFor[commandLine](); len(args) > 0; args = args[1:] {
		var others []string
		var named reflect.Type
		for i := range at.NumField() {
			switch field := at.Field(i); {
			case !isCommand(&field):
			case slices.Contains(commandNames(&field), args[0]):
				named = field.Type
			default:
				others = append(others, field.Name)
			}
		}
		if named == nil {
			break
		}
		if len(others) > 0 {
			left = append(left, at.Name()+`\.(`+strings.Join(others, "|")+")")
		}
		at = named
	}
	if len(left) == 0 {
		return kong.IgnoreFields()
	}
	return kong.IgnoreFields("^(" + strings.Join(left, "|") + ")$")
}

func isCommand(field *reflect.StructField) bool {
	_, ok := field.Tag.Lookup("cmd")
	return ok
}

// commandNames returns the name of a command, as kong makes it of a field, and its
// aliases.
func commandNames(field *reflect.StructField) []string {
	names := strings.Split(field.Tag.Get("aliases"), ",")
	if name := field.Tag.Get("name"); name != "" {
		return append(names, name)
	}
	var name strings.Builder
	for i, r := range field.Name {
		if i > 0 && unicode.IsUpper(r) {
			name.WriteByte('-')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return append(names, name.String())
}
