package rest

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/apikeys-dev/apikeys/server/connection"
	"github.com/apikeys-dev/apikeys/server/reference"
)

// The paths of the document and of the page that shows it.
const (
	documentPath = "/openapi.json"
	pagePath     = "/docs"
)

// A file is an answer that is the same for everybody until the program is another. It
// needs no credential and comes without an envelope.
type file struct {
	mediaType string
	header    http.Header // further headers of the answer
	tag       string      // of its content
	// plain and packed return its content, as it is and in gzip. Each is made when it is first
	// asked for, if it is not there.
	plain, packed func() []byte
}

// newFile makes a file of its content, or of its content in gzip.
func newFile(mediaType string, data, packed []byte) (*file, error) {
	f := &file{mediaType: mediaType, header: make(http.Header)}
	sum := sha256.Sum256(append(bytes.Clone(data), packed...))
	f.tag = hex.EncodeToString(sum[:16])
	if packed == nil {
		f.plain = func() []byte { return data }
		f.packed = sync.OnceValue(func() []byte { return compress(data) })
		return f, nil
	}
	if _, err := decompress(packed); err != nil {
		return nil, fmt.Errorf("a file of the type %s: %w", mediaType, err)
	}
	f.packed = func() []byte { return packed }
	f.plain = sync.OnceValue(func() []byte {
		data, _ := decompress(packed) // which went well above
		return data
	})
	return f, nil
}

func compress(data []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is one
	_, _ = w.Write(data)                                    // neither fails in memory
	_ = w.Close()
	return out.Bytes()
}

func decompress(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// newFiles makes the files that a server serves, by their paths.
func newFiles(document []byte, page []reference.File) (map[string]*file, error) {
	files := make(map[string]*file)
	if document != nil {
		f, err := newFile("application/json", document, nil)
		if err != nil {
			return nil, err
		}
		files[documentPath] = f
	}
	for _, part := range page {
		f, err := newFile(part.Type, part.Data, part.Gzip)
		if err != nil {
			return nil, err
		}
		f.header.Set("Content-Security-Policy", reference.Policy)
		f.header.Set("Referrer-Policy", "no-referrer")
		f.header.Set("Cross-Origin-Opener-Policy", "same-origin")
		path := pagePath
		if part.Name != "" {
			path += "/" + part.Name
		}
		files[path] = f
	}
	return files, nil
}

// file answers a request for one of the files.
func (e *exchange) file() {
	f := e.h.files[e.r.URL.Path]
	if f == nil {
		e.fail(errNoRoute)
		return
	}
	connection.Of(e.r.Context()).Serve()
	// The two forms are two representations, and so have two etags.
	etag, body, coding := `"`+f.tag+`"`, f.plain, ""
	if acceptsGzip(e.r.Header["Accept-Encoding"]) {
		etag, body, coding = `"`+f.tag+`-gzip"`, f.packed, "gzip"
	}
	header := e.w.Header()
	for name, values := range f.header {
		header[name] = values
	}
	header.Set("Cache-Control", "no-cache") // which lets it be kept, and asked for again
	header.Set("ETag", etag)
	header.Set("Vary", "Accept-Encoding")
	e.done = true
	if noneMatches(e.r.Header["If-None-Match"], etag) {
		header.Del("Content-Type")
		e.w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", f.mediaType)
	if coding != "" {
		header.Set("Content-Encoding", coding)
	}
	content := body()
	header.Set("Content-Length", strconv.Itoa(len(content)))
	e.w.WriteHeader(http.StatusOK)
	if e.r.Method != http.MethodHead {
		e.onConnection.Hold(len(content))
		_, _ = e.w.Write(content) // the client has gone; there is nobody to tell
	}
}

// acceptsGzip reports whether an Accept-Encoding header has room for gzip.
func acceptsGzip(values []string) bool {
	all := false
	for _, line := range values {
		for element := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(element, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				return qualityOf(params) > 0
			case "*":
				all = qualityOf(params) > 0
			}
		}
	}
	return all
}

// noneMatches reports whether If-None-Match (RFC 9110, 13.1.2) names an etag, so that the
// client has the content already. Weak etags compare like strong ones here.
func noneMatches(values []string, etag string) bool {
	for _, line := range values {
		for element := range strings.SplitSeq(line, ",") {
			element = strings.TrimPrefix(strings.TrimSpace(element), "W/")
			if element == etag || element == "*" {
				return true
			}
		}
	}
	return false
}
