package rest

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	wirejson "github.com/apikeys-dev/apikeys/server/wire/json"
)

// prefersCSV reports whether an Accept header names text/csv, and likes it more than
// JSON where it names that too.
func prefersCSV(values []string) bool {
	level, quality := acceptance(values, "text/csv")
	if level < 3 || quality == 0 {
		return false
	}
	jsonLevel, jsonQuality := acceptance(values, "application/json")
	return jsonLevel < 3 || jsonQuality < quality
}

// csvOf returns the list of an answer as CSV, a line each below their names, and sets the
// headers that go with it. What JSON says beside the list, headers say.
func (e *exchange) csvOf(m protoreflect.Message) []byte {
	header := e.w.Header()
	header.Set("Content-Type", "text/csv; charset=utf-8; header=present")
	if fd := m.Descriptor().Fields().ByName("incomplete_before"); fd != nil && m.Has(fd) {
		header.Set("X-Incomplete-Before", cell(m, fd))
	}
	fields := e.route.csv.Message().Fields()
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	line := make([]string, fields.Len())
	for i := range line {
		line[i] = string(fields.Get(i).Name())
	}
	_ = w.Write(line) // A buffer takes everything.
	list := m.Get(e.route.csv).List()
	for i := range list.Len() {
		for j := range line {
			line[j] = cell(list.Get(i).Message(), fields.Get(j))
		}
		_ = w.Write(line)
	}
	w.Flush()
	return out.Bytes()
}

// cell returns a value as JSON has it, without quotes; null is empty. A text that a
// spreadsheet would take for a formula begins with an apostrophe.
func cell(m protoreflect.Message, fd protoreflect.FieldDescriptor) string {
	text := string(wirejson.AppendField(nil, m, fd))
	if text == "null" {
		return ""
	}
	if !strings.HasPrefix(text, `"`) {
		return text
	}
	var s string
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return text
	}
	if s != "" && strings.ContainsRune("=+-@\t\r\n", rune(s[0])) {
		return "'" + s
	}
	return s
}
