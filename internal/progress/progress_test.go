package progress

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNothingOffATerminal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var buf bytes.Buffer
	for _, b := range []*Bar{New(file, "work"), New(&buf, "work"), {}} {
		if b.Shown() {
			t.Error("it says that somebody sees it")
		}
		b.Set(1, 2)
		b.Done()
	}
	if got, err := os.ReadFile(path); err != nil || len(got)+buf.Len() > 0 {
		t.Errorf("a file got %q, a buffer %q (%v); want nothing", got, buf.String(), err)
	}
}

func TestBarShowsHowFar(t *testing.T) {
	var terminal bytes.Buffer
	b := newOn(&terminal, "copying", 0)
	b.Set(0, -1) // it begins before the whole is known
	b.Set(150, 200)
	b.Done()
	if got := terminal.String(); !strings.Contains(got, "copying") || !strings.Contains(got, "150/200") {
		t.Errorf("got %q, want what it is about and 150/200", got)
	}
}
