package seal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal.pem")
	made, err := LoadOrCreate(path)
	if err != nil {
		t.Fatalf("no file yet: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode().Perm(), fs.FileMode(0o600); got != want && runtime.GOOS != "windows" {
		t.Errorf("mode: got %o, want %o", got, want)
	}
	wantNames(t, filepath.Dir(path), "seal.pem")
	loaded, err := LoadOrCreate(path)
	if err != nil {
		t.Fatalf("the file it made: %v", err)
	}
	if got, want := loaded.KID(), made.KID(); got != want {
		t.Errorf("kid after loading: got %s, want %s", got, want)
	}
}

// wantNames checks what is in a folder: no temporary file may stay.
func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("files: got %q, want %q", got, want)
	}
}

func TestLoadOrCreateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seal.pem")
	kids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range kids {
		wg.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Errorf("goroutine %d: %v", i, err)
				return
			}
			kids[i] = k.KID()
		})
	}
	wg.Wait()
	for i, got := range kids {
		if want := kids[0]; got != want {
			t.Errorf("goroutine %d: got %s, want %s", i, got, want)
		}
	}
	wantNames(t, filepath.Dir(path), "seal.pem")
}

// A file that appears between looking and making is the key; a file system
// without links still gets one, and still overwrites none.
func TestCreate(t *testing.T) {
	noLinks := func(string, string) error { return errors.ErrUnsupported }
	tests := []struct {
		name    string
		link    func(from, to string) error
		present bool
	}{
		{"links", os.Link, false},
		{"links, file appeared", os.Link, true},
		{"no links", noLinks, false},
		{"no links, file appeared", noLinks, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "seal.pem")
			want := ""
			if tc.present {
				k := mustKey(t)
				if err := os.WriteFile(path, k.PEM(), 0o600); err != nil {
					t.Fatal(err)
				}
				want = k.KID()
			}
			k, err := create(path, tc.link)
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				want = k.KID()
			}
			if got := k.KID(); got != want {
				t.Errorf("kid made: got %s, want %s", got, want)
			}
			loaded, err := load(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := loaded.KID(); got != want {
				t.Errorf("kid in the file: got %s, want %s", got, want)
			}
			wantNames(t, filepath.Dir(path), "seal.pem")
		})
	}
}

func TestLoadOrCreateModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes here")
	}
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true,
		0o640: false, 0o620: false, 0o604: false, 0o602: false, 0o610: false, 0o644: false, 0o666: false,
	} {
		path := filepath.Join(t.TempDir(), "seal.pem")
		if err := os.WriteFile(path, mustKey(t).PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // WriteFile's mode passes through the umask
			t.Fatal(err)
		}
		_, err := LoadOrCreate(path)
		if got := err == nil; got != ok {
			t.Errorf("mode %o: got %v, want accepted=%v", mode, err, ok)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "seal.key: ") || !strings.Contains(err.Error(), "chmod 600 '"+path+"'")) {
			t.Errorf("mode %o: got %q, want the setting and the chmod to run", mode, err)
		}
	}
}

func TestLoadOrCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	tests := []struct{ name, path, want string }{
		{"empty file", write("empty", ""), "no PEM block"},
		{"something else", write("else", "hello"), "no PEM block"},
		{"a folder", dir, "not a regular file"},
		{"no folder", filepath.Join(dir, "no", "seal.pem"), "no such file"},
		{"a link to nothing", dangling, "no such file"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := LoadOrCreate(tc.path)
			if err == nil {
				t.Fatal("got no error, want one")
			}
			if !strings.HasPrefix(err.Error(), "seal.key: ") || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.path) {
				t.Errorf("got %q, want the setting, the path and %q", err, tc.want)
			}
		})
	}
	wantNames(t, dir, "dangling", "else", "empty") // what was there is left as it was
}
