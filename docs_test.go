package hanmadi

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Documents that say of a promise which test shows it name tests that exist:
// `go test -run` is content when nothing matches.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
	byFolder := map[string][]string{}
	var all []string
	for _, dir := range packages(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			for _, m := range declared.FindAllStringSubmatch(read(t, file), -1) {
				byFolder[dir] = append(byFolder[dir], m[1])
				all = append(all, m[1])
			}
		}
	}
	command := regexp.MustCompile("go test (?:[^`\\n]*)-run '?([^' `]+)'?((?: \\./[a-z/]+)+)")
	name := regexp.MustCompile(`\bTest[A-Z]\w*`)
	for _, doc := range []string{"README.md", "DESIGN.md", "SECURITY.md"} {
		text := read(t, doc)
		for _, word := range name.FindAllString(text, -1) {
			if !anyBegins(all, word) {
				t.Errorf("%s names %s; there is no such test", doc, word)
			}
		}
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			var there []string
			for _, dir := range strings.Fields(m[2]) {
				there = append(there, byFolder[strings.TrimPrefix(dir, "./")]...)
			}
			for _, wanted := range strings.Split(strings.ReplaceAll(m[1], `\|`, "|"), "|") {
				if !anyBegins(there, wanted) {
					t.Errorf("%s: `go test -run %s` finds no test in%s", doc, wanted, m[2])
				}
			}
		}
	}
}

func anyBegins(names []string, prefix string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
