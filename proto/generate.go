// Package proto holds the definitions of the API, and no Go code: this file
// only says how the packages under gen are made from them, and then the description
// of the REST API.
package proto

//go:generate go -C .. tool -modfile=.tools/go.mod buf generate
//go:generate go -C .. run ./server/openapi/generate
