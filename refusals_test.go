package hanmadi

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// built is a refusal as the program builds it somewhere.
type built struct {
	where  string
	code   chat.Code
	params []string
	waits  bool // it has a RetryAfter
}

// TestRefusals walks the catalogue through the program's source: every code is
// used, and wherever a refusal is built it has exactly the params that its
// sentences name, and a time to wait exactly where the catalogue says that
// waiting helps. What tests answer is checked as it is answered, but no run of
// them comes to every place.
func TestRefusals(t *testing.T) {
	catalogue, used := chat.Catalogue(), map[chat.Code]bool{}
	for _, b := range refusals(t) {
		e, known := catalogue[b.code]
		if !known {
			t.Errorf("%s: no code of the catalogue; name the constant where the refusal is built", b.where)
			continue
		}
		used[b.code] = true
		if want := e.Fields(); !slices.Equal(b.params, want) {
			t.Errorf("%s: %s has the params %v, want %v", b.where, b.code, b.params, want)
		}
		if atOnce := strings.HasPrefix(string(b.code), "link."); b.waits != (e.Waits() && !atOnce) {
			t.Errorf("%s: %s with retry %q has a RetryAfter: %t", b.where, b.code, e.Retry, b.waits)
		}
	}
	for code := range catalogue {
		if !used[code] {
			t.Errorf("%s is never refused", code)
		}
	}
}

// refusals finds the calls of Refuse and the literals of Refusal in what is
// built into the program.
func refusals(t *testing.T) (all []built) {
	t.Helper()
	codes := codeNames(t)
	for _, dir := range packages(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range parsed.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && dir == "internal/chat" && f.Name.Name == "Refuse" {
					continue // it is the way, not a place
				}
				ast.Inspect(decl, func(n ast.Node) bool {
					if b, ok := builtBy(n, codes); ok {
						b.where = set.Position(n.Pos()).String()
						all = append(all, b)
					}
					return true
				})
			}
		}
	}
	return all
}

// codeNames are the values of chat's constants, by name.
func codeNames(t *testing.T) map[string]chat.Code {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "internal/chat/refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]chat.Code{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if c, ok := n.(*ast.ValueSpec); ok && nameOf(c.Type) == "Code" {
			codes[c.Names[0].Name] = chat.Code(quoted(c.Values[0]))
		}
		return true
	})
	return codes
}

func builtBy(n ast.Node, codes map[string]chat.Code) (b built, ok bool) {
	switch n := n.(type) {
	case *ast.CallExpr:
		if nameOf(n.Fun) != "Refuse" || len(n.Args) != 1 {
			return b, false
		}
		return built{code: codes[nameOf(n.Args[0])]}, true
	case *ast.CompositeLit:
		if nameOf(n.Type) != "Refusal" {
			return b, false
		}
		for _, elt := range n.Elts {
			kv, keyed := elt.(*ast.KeyValueExpr)
			if !keyed {
				continue
			}
			switch nameOf(kv.Key) {
			case "Code":
				b.code = codes[nameOf(kv.Value)]
			case "RetryAfter":
				b.waits = true
			case "Params":
				b.params = keysOf(kv.Value)
			}
		}
		return b, true
	}
	return b, false
}

// nameOf is the name of an identifier, with or without its package.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func quoted(e ast.Expr) string {
	lit, _ := e.(*ast.BasicLit)
	if lit == nil {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value) // a literal that is no string is no name
	return s
}

// keysOf are the keys of a map that is written out; of another there are none,
// so that params are written where the refusal is built.
func keysOf(e ast.Expr) []string {
	lit, _ := e.(*ast.CompositeLit)
	if lit == nil {
		return nil
	}
	keys := map[string]bool{}
	for _, elt := range lit.Elts {
		if kv, ok := elt.(*ast.KeyValueExpr); ok {
			keys[quoted(kv.Key)] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}
