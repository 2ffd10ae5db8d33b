// Package hanmadi holds the rules of the whole house.
package hanmadi

import (
	"go/build"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/hanmadi/hanmadi/"

// room is what a package may import: packages of ours, and third-party modules.
type room struct {
	ours   []string
	theirs []string
}

// rooms is the map of the house. A package that is not in it fails the test, so
// a new room, and a new dependency, is a decision that a reviewer sees here.
var rooms = map[string]room{
	"internal/chat":      {},
	"internal/text":      {theirs: []string{"golang.org/x/text"}},
	"internal/wire":      {},
	"internal/socket":    {theirs: []string{"github.com/gorilla/websocket"}},
	"internal/seal":      {},
	"internal/token":     {ours: []string{"internal/chat", "internal/text", "internal/wire"}, theirs: []string{"github.com/golang-jwt/jwt/v5", "github.com/go-jose/go-jose/v4", cache}},
	"internal/moderate":  {ours: []string{"internal/chat"}},
	"internal/chatlog":   {ours: []string{"internal/chat", "internal/text"}, theirs: []string{"modernc.org/sqlite", "github.com/gofrs/flock", "github.com/oklog/ulid/v2", metrics}},
	"internal/directory": {ours: []string{"internal/chat"}, theirs: []string{cache, metrics, "github.com/sony/gobreaker/v2"}},
	"internal/export":    {ours: []string{"internal/chat"}},
	"internal/hook":      {theirs: []string{metrics}},
	"internal/spec":      {ours: []string{"internal/chat"}},
	"internal/progress":  {theirs: []string{"github.com/schollz/progressbar/v3", "golang.org/x/term"}},
	"internal/live":      {ours: []string{"internal/chat", "internal/seal", "internal/socket", "internal/wire"}, theirs: []string{metrics, "golang.org/x/time"}},
	"internal/web": {ours: []string{"internal/chat", "internal/live", "internal/moderate", "internal/seal", "internal/socket", "internal/spec", "internal/text", "internal/token", "internal/wire"},
		theirs: []string{"golang.org/x/text", metrics}},
	"cmd/hanmadi": {ours: []string{"internal/chat", "internal/chatlog", "internal/directory", "internal/export", "internal/hook", "internal/live", "internal/moderate", "internal/progress", "internal/seal", "internal/socket", "internal/token", "internal/web", "internal/wire"},
		theirs: []string{cli, "go.yaml.in/yaml/v3", metrics}},

	// The benchmark of the whole program. Nothing imports it.
	"cmd/hanmadi-bench": {ours: []string{"internal/socket", "internal/token", "internal/wire"}, theirs: []string{cli}},

	// What other services do with ours: the standard library alone, so that it
	// can be copied.
	"examples/signalling-hook": {},

	// For tests only; nothing that is built into the program imports it.
	"internal/chatlog/logtest": {ours: []string{"internal/chat", "internal/text"}},
	"internal/spec/spectest":   {ours: []string{"internal/chat", "internal/spec"}, theirs: []string{"github.com/santhosh-tekuri/jsonschema/v6"}},
}

// The few libraries that several rooms may import.
const (
	metrics = "github.com/prometheus/client_golang"
	cache   = "github.com/maypok86/otter/v2"
	cli     = "github.com/alecthomas/kong" // each command has a command line
)

// emptyNames are package names that say nothing.
var emptyNames = []string{"util", "utils", "common", "helpers", "models", "pkg", "misc"}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, dir := range packages(t) {
		pkg, err := build.ImportDir(dir, 0)
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		if len(pkg.GoFiles) == 0 {
			continue
		}
		r, known := rooms[dir]
		if !known {
			t.Errorf("%s is not in the map of rooms", dir)
		}
		seen[dir] = true
		if slices.Contains(emptyNames, filepath.Base(dir)) {
			t.Errorf("%s: a package is a thing with a face, not a folder for files", dir)
		}
		for _, imported := range pkg.Imports {
			if !r.allows(imported) {
				t.Errorf("%s must not import %s", dir, imported)
			}
		}
	}
	for dir := range rooms {
		if !seen[dir] {
			t.Errorf("%s stands in the map of rooms but not in the house", dir)
		}
	}
}

func (r room) allows(imported string) bool {
	if own, ok := strings.CutPrefix(imported, module); ok {
		return slices.Contains(r.ours, own)
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(r.theirs, func(m string) bool { return imported == m || strings.HasPrefix(imported, m+"/") })
}

// packages lists the folders that hold Go files.
func packages(t *testing.T) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "data") {
			return filepath.SkipDir
		}
		if files, _ := filepath.Glob(filepath.Join(path, "*.go")); len(files) > 0 && path != "." {
			dirs = append(dirs, filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// A dependency lives in one package: each third-party module is named by one
// room, but for those that several may have.
func TestEachDependencyLivesInOneRoom(t *testing.T) {
	shared := []string{metrics, cache, cli, "golang.org/x/text"}
	home := map[string]string{}
	for dir, r := range rooms {
		for _, m := range r.theirs {
			if other := home[m]; other != "" && !slices.Contains(shared, m) {
				t.Errorf("%s lives in %s and in %s", m, other, dir)
			}
			home[m] = dir
		}
	}
}

// Fuzzed packages must not pull in SQLite, whose instrumentation takes minutes.
func TestFuzzedPackagesStayLight(t *testing.T) {
	for _, dir := range []string{"internal/wire", "internal/text", "internal/token", "internal/seal", "internal/web", "internal/directory", "internal/live"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", "./"+dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), "modernc.org/sqlite") {
			t.Errorf("the tests of %s are built with SQLite", dir)
		}
	}
}
