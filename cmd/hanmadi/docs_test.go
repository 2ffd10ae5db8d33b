package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

func page(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every setting has a row in the page about them, with its default, and no row
// is about a setting that is none.
func TestSettingsPageIsTheConfiguration(t *testing.T) {
	config, _ := configOf(t, "")
	want := map[string]string{}
	for key, v := range config.effective() {
		section, nested := v.(map[string]any)
		if !nested {
			want[key] = fmt.Sprint(v)
		}
		for name, v := range section {
			want[key+"."+name] = fmt.Sprint(v)
		}
	}
	got := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)` \\| ([^|]*) \\| [^|]+ \\|$")
	for _, m := range row.FindAllStringSubmatch(page(t, "docs/configure.md"), -1) {
		if _, twice := got[m[1]]; twice {
			t.Errorf("docs/configure.md has two rows for %s", m[1])
		}
		got[m[1]] = m[2]
	}
	for key, value := range want {
		wantCell := "`" + strings.Trim(strings.ReplaceAll(value, " ", ","), "[]") + "`"
		if value == "" || value == "[]" || value == "(not set)" {
			wantCell = "none"
		}
		if got[key] != wantCell {
			t.Errorf("docs/configure.md, default of %s: got %q, want %q", key, got[key], wantCell)
		}
	}
	for key := range got {
		if _, known := want[key]; !known {
			t.Errorf("docs/configure.md has a row for %s, which is no setting", key)
		}
	}
}

// The page for operators names the metrics that a server really serves, and no
// others.
func TestMetricsPageIsWhatIsServed(t *testing.T) {
	platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data":{"alive":true}}`) // the room server's yes, and nothing to the signalling server
	}))
	defer platform.Close()
	s := startServer(t, "serve", "HANMADI_DIRECTORY_URL="+platform.URL,
		"HANMADI_SIGNALLING_RECONNECT_URL="+platform.URL, "HANMADI_SIGNALLING_SECRET="+tokenSecret)
	s.say(mint(t, "42", ""), "7", "a line with no link to hand it to, so that a hook goes out")

	served := map[string]bool{}
	eventually(t, "the hook is counted", func() bool {
		served = servedMetrics(t, s.adminURL("/metrics"))
		return served["hanmadi_hooks_total"]
	})
	text := page(t, "docs/operate.md")
	named := regexp.MustCompile("(?m)^\\| `(hanmadi_[a-z0-9_]+)`").FindAllStringSubmatch(text, -1)
	for name := range served {
		if !slices.ContainsFunc(named, func(m []string) bool { return m[1] == name }) {
			t.Errorf("docs/operate.md has no row for %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`\bhanmadi_[a-z0-9_]+`).FindAllString(text, -1) {
		plain := m
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			plain = strings.TrimSuffix(plain, suffix)
		}
		if !served[plain] {
			t.Errorf("docs/operate.md speaks of %s, which is not served", m)
		}
	}
}

// Every close code that we send has a row in the page about the protocol, with
// the words of its close frame and on its side of "connect again".
func TestCloseCodesPageIsWhatIsSent(t *testing.T) {
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (4\d\d\d) \| ([a-z ]+) \|`).FindAllStringSubmatch(page(t, "docs/protocol.md"), -1) {
		rows[m[1]] = m[2]
	}
	sent := 0
	for code := wire.CloseCode(4000); code <= 4999; code++ {
		words, number := code.String(), strconv.Itoa(int(code))
		if words == "close code "+number {
			words = "" // a code that we do not have
		} else {
			sent++
		}
		if got := rows[number]; got != words {
			t.Errorf("docs/protocol.md, close code %s: got %q, want %q", number, got, words)
		}
	}
	if sent < 10 {
		t.Errorf("got %d close codes, want all that package wire names", sent)
	}
}

// A page names no code of a refusal that the catalogue does not have.
func TestPagesNameCodesThatExist(t *testing.T) {
	code := regexp.MustCompile("[45][0-9]{2} `([a-z_]+(?:\\.[a-z_]+)?)`")
	for _, path := range []string{"README.md", "docs/protocol.md", "docs/operate.md", "docs/migrate.md", "docs/configure.md"} {
		for _, m := range code.FindAllStringSubmatch(page(t, path), -1) {
			if _, known := chat.Catalogue()[chat.Code(m[1])]; !known {
				t.Errorf("%s: %s is no code", path, m[0])
			}
		}
	}
}

// servedMetrics is the names of our own metrics that a server serves.
func servedMetrics(t *testing.T, url string) map[string]bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := fresh.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (hanmadi_\S+) `).FindAllStringSubmatch(string(text), -1) {
		names[m[1]] = true
	}
	return names
}

// The image is built as the binary of `make build` is, with the Go that the
// module asks for, and its settings exist.
func TestDockerfileFitsTheProgram(t *testing.T) {
	dockerfile, makefile, module := page(t, "Dockerfile"), page(t, "Makefile"), page(t, "go.mod")
	flags := regexp.MustCompile(`CGO_ENABLED=0 .*build (-.*) -o \S+ (\./cmd/hanmadi)`)
	got, want := flags.FindStringSubmatch(dockerfile), flags.FindStringSubmatch(makefile)
	if got == nil || want == nil || got[1] != want[1] {
		t.Errorf("the image's build: got %q, want the flags of make build, %q", got, want)
	}
	wantGo := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(module)[1]
	if m := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+) `).FindStringSubmatch(dockerfile); m == nil || m[1] != wantGo {
		t.Errorf("the image's Go: got %q, want %s of go.mod", m, wantGo)
	}
	for _, name := range regexp.MustCompile(`\bHANMADI_[A-Z0-9_]+`).FindAllString(dockerfile, -1) {
		if !slices.ContainsFunc(knownKeys(), func(key string) bool { return envName(key) == name }) {
			t.Errorf("Dockerfile: there is no setting %s", name)
		}
	}
}
