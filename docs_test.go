package hanmadi

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Documents that say of a promise which test shows it name tests that exist:
// `go test -run` is content when nothing matches.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
	byFolder := map[string][]string{}
	var all []string
	for _, dir := range append(packages(t), ".") {
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
	for _, doc := range documents(t) {
		text := read(t, doc)
		for _, word := range name.FindAllString(blocks.ReplaceAllString(text, ""), -1) {
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

// Links between the documents lead somewhere: to a file that is there, and to a
// heading that it has.
func TestLinksOfTheDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^()\s]+)\)`)
	documents := documents(t)
	checked := 0
	for _, doc := range documents {
		for _, m := range link.FindAllStringSubmatch(prose(read(t, doc)), -1) {
			if strings.Contains(m[1], ":") {
				continue // of the world
			}
			checked++
			if problem := deadLink(t, doc, m[1]); problem != "" {
				t.Errorf("%s: the link to %s: %s", doc, m[1], problem)
			}
		}
	}
	if len(documents) < 10 || checked < 50 {
		t.Errorf("got %d documents with %d links: some were not found", len(documents), checked)
	}
}

// documents lists the Markdown files of the repository.
func documents(t *testing.T) (found []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "data"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// deadLink says what is wrong with a link in a document, "" for nothing.
func deadLink(t *testing.T, doc, target string) string {
	t.Helper()
	path, anchor, hasAnchor := strings.Cut(target, "#")
	file := doc
	if path != "" {
		file = filepath.Join(filepath.Dir(doc), filepath.FromSlash(path))
	}
	if !filepath.IsLocal(file) {
		return "outside of the repository"
	}
	if _, err := os.Stat(file); err != nil {
		return "there is no such file"
	}
	if hasAnchor && !slices.Contains(anchors(read(t, file)), anchor) {
		return "there is no such heading"
	}
	return ""
}

// anchors are the headings of a document as GitHub names them.
func anchors(text string) (all []string) {
	heading := regexp.MustCompile(`(?m)^#{1,6} +(.+)$`)
	dropped := regexp.MustCompile(`[^\p{L}\p{N}\p{M}_ -]`)
	seen := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(blocks.ReplaceAllString(text, ""), -1) {
		name := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(m[1])), ""), " ", "-")
		seen[name]++
		if n := seen[name]; n > 1 {
			name += "-" + strconv.Itoa(n-1)
		}
		all = append(all, name)
	}
	return all
}

// prose is a document without what it shows as code.
func prose(text string) string {
	return spans.ReplaceAllString(blocks.ReplaceAllString(text, ""), "")
}

var (
	blocks = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	spans  = regexp.MustCompile("`[^`\n]+`")
)

func TestAnchors(t *testing.T) {
	got := anchors("# A B\n```sh\n# no heading\n```\n## The `/x`-y, z's way\n## A B\n")
	if want := []string{"a-b", "the-x-y-zs-way", "a-b-1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
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
