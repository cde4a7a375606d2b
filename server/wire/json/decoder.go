package json

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep objects and lists of a body may be nested.
const maxDepth = 32

// A SyntaxError says that a body is not one JSON object, and where it stops
// being one. It never quotes the body.
type SyntaxError struct {
	Offset       int // bytes before the place
	Line, Column int // from 1; the column counts bytes
	Problem      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not valid JSON: %s at line %d, column %d", e.Problem, e.Line, e.Column)
}

// decoder reads the tokens of one body. The grammar, UTF-8 and names that are there
// twice are the library's; the decoder adds the bound on depth and tells errors in its
// own words. What it returns is valid until the next token.
type decoder struct {
	tokens jsontext.Decoder
	input  bytes.Buffer
	data   []byte
	text   []byte // a string that had escapes

	// unknownName says that the library saw a name that is no field's. It remembers names
	// to find those that are there twice, and a reset does not overwrite them: a secret
	// in the place of a name would stay.
	unknownName bool
}

// decoders holds decoders that are ready for a body and remember nothing of one.
var decoders = sync.Pool{New: func() any {
	d := new(decoder)
	d.tokens.Reset(&d.input)
	return d
}}

func newDecoder(data []byte) *decoder {
	d := decoders.Get().(*decoder)
	d.data, d.input = data, *bytes.NewBuffer(data) // the library reads it without a copy
	return d
}

// maxKept is how many bytes for strings with escapes a decoder keeps for its next body.
const maxKept = 4 << 10

// release gives the decoder back, and reports so. One that remembers something of its
// body is left to the garbage collector: a name that is no field's, or what an error
// told.
func (d *decoder) release(err error) bool {
	if d.unknownName || err != nil || cap(d.text) > maxKept {
		return false
	}
	clear(d.text[:cap(d.text)])
	d.data, d.input = nil, bytes.Buffer{}
	d.tokens.Reset(&d.input)
	decoders.Put(d)
	return true
}

// next returns the kind of the next token without taking it. Where there is none, the
// next read says why.
func (d *decoder) next() jsontext.Kind { return d.tokens.PeekKind() }

// token takes the next token: the start or the end of an object or list, or a whole
// name or value that is neither.
func (d *decoder) token() error {
	if _, err := d.tokens.ReadToken(); err != nil {
		return d.fault(err)
	}
	if d.tokens.StackDepth() > maxDepth {
		return d.fail(int(d.tokens.InputOffset())-1, "nested too deep")
	}
	return nil
}

// literal takes a value that is neither object nor list, as it stands there.
func (d *decoder) literal() (jsontext.Value, error) {
	v, err := d.tokens.ReadValue()
	if err != nil {
		return nil, d.fault(err)
	}
	return v, nil
}

// name takes an object's next name.
func (d *decoder) name() ([]byte, error) {
	if d.next() != jsontext.KindString {
		return nil, d.token() // no other token is taken here
	}
	quoted, err := d.literal()
	if err != nil {
		return nil, err
	}
	return d.unquote(quoted), nil
}

// unquote returns what a string means.
func (d *decoder) unquote(quoted jsontext.Value) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	d.text, _ = jsontext.AppendUnquote(d.text[:0], quoted) // was checked when it was taken
	return d.text
}

// skip takes a value of any kind.
func (d *decoder) skip() error {
	if kind := d.next(); kind != jsontext.KindBeginObject && kind != jsontext.KindBeginArray {
		_, err := d.literal()
		return err
	}
	d.unknownName = true
	for depth := d.tokens.StackDepth(); ; {
		if err := d.token(); err != nil || d.tokens.StackDepth() == depth {
			return err
		}
	}
}

// start fails unless an object begins here.
func (d *decoder) start() error {
	if d.next() == jsontext.KindBeginObject {
		return nil
	}
	offset := d.afterSpace()
	if offset == len(d.data) {
		return d.fail(offset, "unexpected end")
	}
	return d.fail(offset, "expected an object")
}

// end fails unless the body ends here.
func (d *decoder) end() error {
	if offset := d.afterSpace(); offset < len(d.data) {
		return d.fail(offset, "something after the object")
	}
	return nil
}

// afterSpace returns where the white space ends that follows the last token.
func (d *decoder) afterSpace() int {
	return len(d.data) - len(bytes.TrimLeft(d.data[d.tokens.InputOffset():], " \t\r\n"))
}

// fault makes a [SyntaxError] of an error of the library. The place is the one that the
// library tells: the first byte of the name, escape or word that is wrong.
func (d *decoder) fault(err error) error {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok || errors.Is(err, io.ErrUnexpectedEOF) {
		return d.fail(len(d.data), "unexpected end")
	}
	offset, text := int(syntax.ByteOffset), syntax.Err.Error()
	kind, length := d.tokens.StackIndex(d.tokens.StackDepth())
	switch startsValue := strings.HasSuffix(text, "at start of value"); {
	case startsValue && bytes.HasPrefix(d.data[offset:], []byte{','}):
		return d.fail(offset, "a comma without an element beside it")
	case startsValue && kind == jsontext.KindBeginObject && length%2 == 0:
		return d.fail(offset, "expected a name in double quotes")
	}
	for _, row := range syntaxProblems {
		if strings.Contains(text, row.library) {
			return d.fail(offset, row.problem)
		}
	}
	return d.fail(offset, "unexpected text")
}

// syntaxProblems says what the library's errors mean. Their own texts quote the body,
// and are not told.
var syntaxProblems = []struct{ library, problem string }{
	{jsontext.ErrDuplicateName.Error(), "a name that was there before"},
	{jsontext.ErrNonStringName.Error(), "expected a name in double quotes"},
	{"(expecting ':')", "expected a colon"},
	{"(expecting ',' or '}')", "expected a comma or }"},
	{"(expecting ',' or ']')", "expected a comma or ]"},
	{"(expecting non-control character)", "a control character in a string"},
	{"(expecting digit)", "a number without a digit where one must be"},
	{"in literal", "expected a value"},
	{"at start of value", "expected a value"},
	{"missing value", "expected a value"},
	{"invalid UTF-8", "a byte that is not UTF-8"},
	{"in string", "an invalid escape in a string"},
}

func (d *decoder) fail(offset int, problem string) error {
	before := d.data[:offset]
	return &SyntaxError{
		Offset:  len(before),
		Line:    1 + bytes.Count(before, []byte{'\n'}),
		Column:  len(before) - bytes.LastIndexByte(before, '\n'),
		Problem: problem,
	}
}
