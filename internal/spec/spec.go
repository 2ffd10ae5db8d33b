// Package spec is the interface as documents for programs: OpenAPI 3.1 for HTTP,
// AsyncAPI 3 for the sockets. They are written by hand, so that they say what was
// agreed and not what happens to be built, and kept true by test: package
// spectest holds every exchange and frame of the tests against them.
package spec

import (
	"bytes"
	_ "embed"
	"maps"
	"slices"

	"github.com/hanmadi/hanmadi/internal/chat"
)

//go:embed openapi.json
var openAPI []byte

//go:embed asyncapi.json
var asyncAPI []byte

// codesMark stands in the file where the catalogue's codes belong.
const codesMark = `"{{codes}}"`

// OpenAPI is the HTTP interface, with every code of the catalogue. The caller
// may change it.
func OpenAPI() []byte {
	var codes []byte
	for i, code := range slices.Sorted(maps.Keys(chat.Catalogue())) {
		if i > 0 {
			codes = append(codes, `, `...)
		}
		codes = append(codes, `"`+string(code)+`"`...) // a code needs no escapes
	}
	return bytes.Replace(openAPI, []byte(codesMark), codes, 1)
}

// AsyncAPI is the sockets. It refers to schemas of OpenAPI, as openapi.json
// beside it. The caller may change it.
func AsyncAPI() []byte { return bytes.Clone(asyncAPI) }
