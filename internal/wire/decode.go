// Package wire is what crosses the network as JSON: the strict decoding of
// what comes in, and the frames of the link, a presenter's WebSocket.
//
// It knows nothing of chat: it says whether bytes have the agreed shape, not
// whether what they ask for may be done. All functions are safe for
// concurrent use.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how many objects and arrays may stand inside each other, the top
// level included. What we accept needs four; the bound keeps recursive readers,
// ours and those of whoever gets the data from us, off the end of their stacks.
const maxDepth = 32

// ErrInvalid is what every [InvalidError] is to [errors.Is].
var ErrInvalid = errors.New("wire: invalid")

// InvalidError says why data was refused.
type InvalidError struct {
	// Reason is a phrase in English for whoever wrote the client. It tells the
	// place where there is one, and quotes at most a few characters of the data.
	Reason string
}

func (e *InvalidError) Error() string { return "wire: invalid: " + e.Reason }
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// Reason is the reason of an [*InvalidError] in err, or all that err says.
func Reason(err error) string {
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		return invalid.Reason
	}
	return err.Error()
}

func invalidf(format string, args ...any) error {
	return &InvalidError{Reason: fmt.Sprintf(format, args...)}
}

// Decode is [json.Unmarshal] for data from outside. It refuses, with an
// [*InvalidError], what two readers could understand differently or what
// encoding/json would quietly alter:
//
//   - invalid UTF-8, and escapes of lone surrogates (both would become U+FFFD);
//   - a name that an object repeats; names are compared as encoding/json
//     matches them to fields, without regard to case, so "text" and "Text" are
//     a repetition, and so are "text" and "te\u0078t";
//   - a top level other than an object, anything after it, and nesting deeper
//     than 32;
//   - whatever json.Unmarshal refuses.
//
// As with json.Unmarshal, unknown members are ignored and null leaves a field
// as it was, as though the member were absent. After an error v may be partly
// written. A v that is not a pointer is the caller's mistake and gives
// json.Unmarshal's own error.
//
// Time is linear in the length of data, which the caller bounds.
func Decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return invalidf("not UTF-8")
	}
	// Reading first saves checking the grammar twice. What has the wrong type may
	// be something worse: the scan has the first say.
	err := json.Unmarshal(data, v)
	if _, syntax := errors.AsType[*json.SyntaxError](err); !syntax {
		if err := scan(data); err != nil {
			return err
		}
	}
	return unmarshalError(err)
}

// unmarshalError turns the errors of json.Unmarshal into ours. They name Go
// types, which mean nothing to a client.
func unmarshalError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*json.InvalidUnmarshalError](err); ok {
		return err
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalidf("member %.64q has the wrong type or is out of range", e.Field)
	}
	return invalidf("%.128s", err)
}

// scan refuses what json.Unmarshal lets pass. The grammar of data is known to be
// right, so the scanner need not know it: every quote outside a string begins
// one, and a string before a colon is a name.
func scan(data []byte) error {
	if bytes.TrimLeft(data, space)[0] != '{' {
		return invalidf("not an object")
	}

	// The names of the object that is open at each depth. A map is made with the
	// first name and dropped, not cleared, with the object: clearing one that was
	// large costs its size again for every small sibling after it.
	var names [maxDepth + 1]map[string]struct{}
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return invalidf("nested deeper than %d at byte %d", maxDepth, i)
			}
			names[depth] = nil
		case '}', ']':
			depth--
		case '"':
			quoted, err := scanString(data, i)
			if err != nil {
				return err
			}
			begin := i
			i += len(quoted) - 1
			if !bytes.HasPrefix(bytes.TrimLeft(data[i+1:], space), colon) {
				continue
			}
			name := foldName(quoted)
			if _, ok := names[depth][name]; ok {
				return invalidf("name repeated at byte %d", begin)
			}
			if names[depth] == nil {
				names[depth] = make(map[string]struct{})
			}
			names[depth][name] = struct{}{}
		}
	}
	return nil
}

const space = " \t\r\n" // what JSON calls white space

var colon = []byte{':'}

// scanString returns the string of valid JSON that begins at data[begin], with
// its quotes, unless it escapes half a surrogate pair.
func scanString(data []byte, begin int) ([]byte, error) {
	for i := begin + 1; ; i++ {
		switch data[i] {
		case '"':
			return data[begin : i+1], nil
		case '\\':
			unit, ok := escapedUnit(data[i:])
			if !ok {
				i++ // a short escape, perhaps of a quote
				continue
			}
			if utf16.IsSurrogate(unit) {
				low, _ := escapedUnit(data[i+escapedUnitLen:])
				if utf16.DecodeRune(unit, low) == utf8.RuneError {
					return nil, invalidf("lone surrogate at byte %d", i)
				}
				i += escapedUnitLen // the rest of an escape reads like any text
			}
		}
	}
}

const escapedUnitLen = len(`\u0000`)

// escapedUnit returns the UTF-16 code unit whose \u escape b, a part of valid
// JSON, begins with.
func escapedUnit(b []byte) (unit rune, ok bool) {
	if len(b) < escapedUnitLen || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var unit16 [2]byte
	_, _ = hex.Decode(unit16[:], b[2:escapedUnitLen]) // cannot fail: the grammar asks for four digits
	return rune(binary.BigEndian.Uint16(unit16[:])), true
}

// foldName returns a quoted name as a key that is the same for all names that
// encoding/json takes for one another, which is what [strings.EqualFold] does.
func foldName(quoted []byte) string {
	name := string(quoted[1 : len(quoted)-1])
	if strings.IndexByte(name, '\\') >= 0 {
		// Cannot fail: the grammar has been checked, and so have the surrogates.
		_ = json.Unmarshal(quoted, &name)
	}
	return strings.Map(foldRune, name)
}

// foldRune returns the least of the runes that r equals without regard to case.
func foldRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z':
		return r - 'a' + 'A'
	case r < utf8.RuneSelf:
		return r
	}
	for {
		next := unicode.SimpleFold(r)
		if next <= r { // the orbit is cyclic: past its greatest comes its least
			return next
		}
		r = next
	}
}
