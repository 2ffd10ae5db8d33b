package web

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/hanmadi/hanmadi/internal/spec"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
)

func documents(t *testing.T) *spectest.Documents {
	t.Helper()
	docs, err := spectest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// registered reads the routes where they stand, on one screen in web.go: a mux
// does not tell its patterns.
func registered(t *testing.T) (routes []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "web.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "route" {
				return true
			}
			pattern, err := strconv.Unquote(call.Args[1].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			routes = append(routes, f.Name.Name+" "+pattern)
			return true
		})
	}
	return routes
}

func TestRoutesAreThoseOfTheDocument(t *testing.T) {
	var documented []string
	for _, op := range documents(t).Operations() {
		face := "public"
		if op.Operator {
			face = "admin"
		}
		documented = append(documented, fmt.Sprint(face, " ", op.Method, " ", op.Path))
	}
	routes := registered(t)
	for _, r := range routes {
		if !slices.Contains(documented, r) {
			t.Errorf("%s is served and not documented", r)
		}
	}
	for _, d := range documented {
		if !slices.Contains(routes, d) {
			t.Errorf("%s is documented and not served", d)
		}
	}
}

func TestDocumentsAreServed(t *testing.T) {
	f := newFixture(t, nil)
	for path, want := range map[string][]byte{"/openapi.json": spec.OpenAPI(), "/asyncapi.json": spec.AsyncAPI()} {
		resp, body := f.call("GET", path, "")
		if resp.StatusCode != 200 || !bytes.Equal(body, want) {
			t.Errorf("%s: %d, %d bytes, want %d", path, resp.StatusCode, len(body), len(want))
		}
	}
}
