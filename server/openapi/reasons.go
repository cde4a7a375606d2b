package openapi

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/apikeys-dev/apikeys/server/rest"
)

// A failure is one that a caller over REST can meet.
type failure struct {
	status       int
	reason, text string
}

// overGRPC are the reasons that REST has no use for, and overGateway is the package of a
// listener that is no part of it.
var overGRPC = []string{"MALFORMED_MESSAGE"}

const overGateway = "server/gate"

// readFailures finds the failures in the source of the server. They are declared
// where they happen, in three ways:
//
//	apikey.Errorf(kind, reason, text, ...)
//	apikey.Error{Kind: kind, Reason: reason, Message: text}, and failure{status: ...} of server/rest
//	a row {..., reason, text} of a table of faulty fields
//
// Kinds become statuses by the tables of server/api and server/rest.
func readFailures(source fs.FS) ([]failure, error) {
	s := scanner{constants: make(map[string]string), codes: make(map[string]codes.Code), found: make(map[failureKey]string)}
	if err := s.parse(source); err != nil {
		return nil, err
	}
	for _, f := range s.files {
		s.declarations(f)
	}
	if len(s.codes) == 0 {
		return nil, fmt.Errorf("the table codeOf is not in server/api/errors.go any more")
	}
	for _, f := range s.files {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				s.call(f, n)
			case *ast.CompositeLit:
				s.literal(f, n)
			}
			return true
		})
	}
	for _, f := range rest.Fallbacks() {
		s.add(f.Status, f.Reason, f.Text)
	}
	return s.list(), nil
}

// scanner looks for failures in parsed files.
type scanner struct {
	files     []sourceFile
	constants map[string]string     // of strings, by package and name
	codes     map[string]codes.Code // of kinds, by name
	found     map[failureKey]string
}

type sourceFile struct {
	dir    string // of its package, its last part
	syntax *ast.File
}

type failureKey struct {
	status int
	reason string
}

func (s *scanner) parse(source fs.FS) error {
	return fs.WalkDir(source, "server", func(name string, d fs.DirEntry, err error) error {
		if name == overGateway {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("look for failures: %w", err)
		}
		s.files = append(s.files, sourceFile{path.Base(path.Dir(name)), syntax})
		return nil
	})
}

// declarations takes the constants of a file, and the table of codes.
func (s *scanner) declarations(f sourceFile) {
	for _, d := range f.syntax.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range group.Specs {
			values, ok := spec.(*ast.ValueSpec)
			if !ok || len(values.Names) != len(values.Values) {
				continue
			}
			for i, name := range values.Names {
				if table, ok := values.Values[i].(*ast.CompositeLit); ok && f.dir == "api" && name.Name == "codeOf" {
					s.codeTable(table)
				} else if group.Tok == token.CONST {
					if text, whole := s.text(f, values.Values[i]); whole {
						s.constants[f.dir+"."+name.Name] = text
					}
				}
			}
		}
	}
}

func (s *scanner) codeTable(table *ast.CompositeLit) {
	byName := make(map[string]codes.Code)
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		byName[c.String()] = c
	}
	for _, row := range table.Elts {
		if pair, ok := row.(*ast.KeyValueExpr); ok {
			s.codes[lastName(pair.Key)] = byName[lastName(pair.Value)]
		}
	}
}

// lastName is the name of an identifier, without its package.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// text returns what a string says, and whether that is all known. What is not is an
// ellipsis.
func (s *scanner) text(f sourceFile, e ast.Expr) (text string, whole bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, err := strconv.Unquote(e.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		left, l := s.text(f, e.X)
		right, r := s.text(f, e.Y)
		return left + right, l && r
	case *ast.Ident:
		if text, ok := s.constants[f.dir+"."+e.Name]; ok {
			return text, true
		}
	case *ast.SelectorExpr:
		if pkg, ok := e.X.(*ast.Ident); ok {
			if text, ok := s.constants[pkg.Name+"."+e.Sel.Name]; ok {
				return text, true
			}
		}
	}
	return "…", false
}

// call takes the failure of a call of Errorf, or of another function that is given a
// reason and a text.
func (s *scanner) call(f sourceFile, call *ast.CallExpr) {
	switch name := lastName(call.Fun); {
	case name == "Errorf" && len(call.Args) >= 3:
		code, ok := s.codes[lastName(call.Args[0])]
		reason, whole := s.text(f, call.Args[1])
		if ok && whole {
			text, _ := s.text(f, call.Args[2])
			s.add(rest.StatusOf(code, reason), reason, text)
		}
	case strings.HasSuffix(name, "Error"):
		s.row(f, call.Args)
	}
}

// row takes the failure of a faulty field: the last two of a row are its reason and
// the end of its sentence.
func (s *scanner) row(f sourceFile, row []ast.Expr) {
	if len(row) < 3 {
		return
	}
	reason, ok := s.text(f, row[len(row)-2])
	text, whole := s.text(f, row[len(row)-1])
	if ok && whole && reasonForm.MatchString(reason) && strings.Contains(text, " ") {
		s.add(http.StatusBadRequest, reason, "after "+text+".")
	}
}

// literal takes the failure of a composite literal.
func (s *scanner) literal(f sourceFile, lit *ast.CompositeLit) {
	kind := ""
	if lit.Type != nil {
		kind = lastName(lit.Type)
	}
	values := make(map[string]ast.Expr)
	for _, e := range lit.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			values[lastName(pair.Key)] = pair.Value
		}
	}
	var reason, text string
	var ok bool
	switch {
	case kind == "Error" && values["Reason"] != nil:
		code, known := s.codes[lastName(values["Kind"])]
		reason, ok = s.text(f, values["Reason"])
		text, _ = s.text(f, values["Message"])
		if known && ok {
			s.add(rest.StatusOf(code, reason), reason, text)
		}
	case kind == "failure" && f.dir == "rest" && values["reason"] != nil:
		status := statusByName[lastName(values["status"])]
		reason, ok = s.text(f, values["reason"])
		text, _ = s.text(f, values["text"])
		if status != 0 && ok {
			s.add(status, reason, text)
		}
	case kind == "" && len(values) == 0:
		s.row(f, lit.Elts)
	}
}

// statusByName are the statuses by the names of their constants.
var statusByName = func() map[string]int {
	table := make(map[string]int)
	for status := 400; status < 600; status++ {
		if text := http.StatusText(status); text != "" {
			table["Status"+strings.NewReplacer(" ", "", "-", "", "'", "").Replace(text)] = status
		}
	}
	return table
}()

var (
	reasonForm = regexp.MustCompile(`^[A-Z][A-Z]+(_[A-Z]+)*$`)
	verb       = regexp.MustCompile(`%[+#]?[a-z]`)
)

// add keeps a failure, with the first text that says something.
func (s *scanner) add(status int, reason, text string) {
	if !reasonForm.MatchString(reason) || slices.Contains(overGRPC, reason) {
		return
	}
	key := failureKey{status, reason}
	text = verb.ReplaceAllString(text, "…")
	if !strings.Contains(text, " ") {
		text = ""
	}
	s.found[key] = cmp.Or(s.found[key], text)
}

// list returns what was found, by status and reason. What has no text has that of its
// status.
func (s *scanner) list() []failure {
	fixed := make(map[int]string)
	for _, f := range rest.Fallbacks() {
		fixed[f.Status] = f.Text
	}
	var all []failure
	for key, text := range s.found {
		all = append(all, failure{key.status, key.reason, cmp.Or(text, fixed[key.status], http.StatusText(key.status)+".")})
	}
	slices.SortFunc(all, func(a, b failure) int { return cmp.Or(a.status-b.status, strings.Compare(a.reason, b.reason)) })
	return all
}
