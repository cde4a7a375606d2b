// Package reference holds the page at /docs, on which people read the OpenAPI document: Swagger
// UI as its makers built it (Apache License 2.0, see LICENSE and NOTICE here), a frame
// of HTML, and a few lines that start it.
//
// The page asks nothing of any other host and works without a network: Policy forbids all
// else, inline scripts and styles too. Swagger UI comes compressed, from the npm
// package swagger-ui-dist; the checks compare it with the package (.ci/reference).
package reference

import (
	_ "embed"
	"strings"
)

// Policy is the Content-Security-Policy of the page.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A File is a part of the page.
type File struct {
	// Name is what follows /docs/ in its path; empty for the page itself.
	Name string
	// Type is its Content-Type.
	Type string
	// Data is what it holds, and Gzip the same in gzip. One of them is set.
	Data, Gzip []byte
}

var (
	//go:embed index.html
	index string
	//go:embed init.js
	start []byte
	//go:embed swagger-ui-bundle.js.gz
	script []byte
	//go:embed swagger-ui.css.gz
	style []byte
)

// Page returns the files of the page. Where calls is true, a reader can make calls from
// it, with a credential that it keeps in memory alone.
func Page(calls bool) []File {
	page := index
	if calls {
		page = strings.Replace(page, `data-calls="no"`, `data-calls="yes"`, 1)
	}
	const javascript = "text/javascript; charset=utf-8"
	return []File{
		{Name: "", Type: "text/html; charset=utf-8", Data: []byte(page)},
		{Name: "init.js", Type: javascript, Data: start},
		{Name: "swagger-ui-bundle.js", Type: javascript, Gzip: script},
		{Name: "swagger-ui.css", Type: "text/css; charset=utf-8", Gzip: style},
	}
}
