// Package output writes the results of commands in the form that was asked for: a
// table, JSON, a line of JSON each, YAML, ids, a secret, or what a JSON path finds.
//
// Whatever the form, it is made from one JSON text for each result, the one that the
// REST API has in `data`. So -o json is that text to the byte, and no other form
// knows anything that JSON does not tell.
//
// Results come one after the other and leave when they come: a list of a hundred
// thousand is never held whole, but for a JSON path, which may look at all of it.
//
// A table for a person fits the terminal, with texts cut where they are too long. For
// a program, where the output is no terminal, nothing is cut. Characters that a
// terminal would obey reach no terminal: labels and the answers of endpoints are
// written by other people.
package output
