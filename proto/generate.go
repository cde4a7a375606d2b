// Package proto holds the definitions of the API, and no Go code: this file
// only says how the packages under gen are made from them.
package proto

//go:generate go -C .. tool -modfile=.tools/go.mod buf generate
