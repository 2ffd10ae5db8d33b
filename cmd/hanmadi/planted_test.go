//go:build planted

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPlanted plants bugs one by one, each in an overlay over the sources, and
// runs the tests that must find it. A bug that survives is a test that is
// missing, and fails this one.
func TestPlanted(t *testing.T) {
	root := moduleRoot(t)
	bugs := plants()
	for i, p := range bugs {
		t.Run(p.name, func(t *testing.T) {
			start := time.Now()
			verdict := p.test(t, root)
			took := time.Since(start).Round(100 * time.Millisecond)
			if len(verdict.survived) > 0 {
				t.Fatalf("%d/%d survived %s in %s: %s\nit breaks: %s\n%s", i+1, len(bugs), p.pkg, took,
					strings.Join(verdict.survived, ", "), p.breaks, verdict.output)
			}
			t.Logf("%d/%d caught in %s by %s: %s", i+1, len(bugs), took, strings.Join(p.tests, ", "), p.breaks)
		})
	}
}

// outcome is what the tests said of a planted bug.
type outcome struct {
	survived []string // tests that did not go red
	output   string
}

// test runs the plant's tests with its edits. What does not compile, or has no
// place in the sources any more, catches nothing and ends this test.
func (p plant) test(t *testing.T, root string) outcome {
	t.Helper()
	// By GOFLAGS, so that it reaches the program that cmd/hanmadi's tests build.
	overlay := p.overlay(t, root)
	run := "^(" + strings.Join(p.tests, "|") + ")$"
	cmd := exec.Command("go", "test", "-json", "-count=1", "-vet=off", "-timeout=3m", "-run", run, "./"+p.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay)
	out, err := cmd.Output()
	if err == nil {
		return outcome{survived: p.tests, output: "every test passed"}
	}
	red, output, ran := readResults(t, out)
	if !ran {
		stderr := ""
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = string(exit.Stderr)
		}
		t.Fatalf("no test ran, so nothing was caught: the edit does not compile?\n%s%s", output, stderr)
	}
	v := outcome{output: output}
	for _, name := range p.tests {
		if !red[name] {
			v.survived = append(v.survived, name)
		}
	}
	return v
}

// overlay writes the edited files beside the sources and the list that puts
// them in their place (go help build, -overlay).
func (p plant) overlay(t *testing.T, root string) (path string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range p.edited(t, root) {
		place := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(place, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = place
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readResults gives the tests that went red, what was written, and whether any
// test began at all. A test that began and never ended took its process with
// it, by a panic or a deadlock: it is red as well.
func readResults(t *testing.T, out []byte) (red map[string]bool, output string, ran bool) {
	t.Helper()
	red = map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	var text strings.Builder
	for lines.Scan() {
		var e struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("go test -json wrote %q: %v", lines.Bytes(), err)
		}
		text.WriteString(e.Output)
		switch {
		case e.Test == "":
		case e.Action == "run":
			ran, red[e.Test] = true, true
		case e.Action == "pass" || e.Action == "skip":
			delete(red, e.Test)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return red, tailOf(text.String(), 8<<10), ran
}

// tailOf is the end of a long text, which is where tests say what was wrong.
func tailOf(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return "…" + strings.ToValidUTF8(s[len(s)-most:], "")
}
