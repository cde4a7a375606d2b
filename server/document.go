package server

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/apikeys-dev/apikeys/gen"
	"github.com/apikeys-dev/apikeys/server/reference"
)

// unknownVersion stands in the OpenAPI document where the version of the program
// belongs.
const unknownVersion = `"version": "0.0.0-unknown"`

// apiDocument returns the OpenAPI document of a server of a version.
func apiDocument(version string) []byte {
	number, _, _ := strings.Cut(version, " (") // without how it was built
	quoted, err := json.Marshal(number)
	if err != nil {
		return gen.OpenAPI
	}
	return bytes.Replace(gen.OpenAPI, []byte(unknownVersion), append([]byte(`"version": `), quoted...), 1)
}

// referencePage returns the page at /docs, nil where the server is to have none. Only in
// development calls can be made from it: in production a page is no place to type
// credentials into.
func referencePage(c *Config) []reference.File {
	if c.NoDocs {
		return nil
	}
	return reference.Page(c.Env != Production)
}
