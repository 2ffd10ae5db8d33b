package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// maxFile is far above the 119 bytes of a key's PEM; it only keeps a wrong
// path from being read whole.
const maxFile = 16 << 10

// LoadOrCreate reads the key from a PEM file, or makes the file when there is
// none, with mode 0600. Processes that start together end up with the same
// key: the file appears whole and is never overwritten.
//
// A file that its group or others may touch is refused, with the command that
// puts it right; Windows has no such modes and is not checked. Errors name the
// setting seal.key and never contain the key.
func LoadOrCreate(path string) (Key, error) {
	k, err := load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	return create(path, os.Link)
}

func load(path string) (Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("seal.key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("seal.key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("seal.key: %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return Key{}, fmt.Errorf("seal.key: others may read the key (mode %04o); run: chmod 600 '%s'", mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Key{}, fmt.Errorf("seal.key: %w", err)
	}
	k, err := ParseKey(data)
	if err != nil {
		return Key{}, fmt.Errorf("%w (in %s)", err, path)
	}
	return k, nil
}

// create makes a key and its file, unless a file appears meanwhile: then that
// one is the key. link is os.Link, or what a test puts in its place.
func create(path string, link func(from, to string) error) (Key, error) {
	k, err := NewKey()
	if err != nil {
		return Key{}, err
	}
	// Linking a finished file, rather than renaming it, fails where a file
	// stands already; and unlike writing in place nobody reads half a key.
	temp, err := writeTemp(filepath.Dir(path), k.PEM())
	if err != nil {
		return Key{}, fmt.Errorf("seal.key: make %s: %w", path, err)
	}
	defer os.Remove(temp)
	err = link(temp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Some network and FUSE file systems have no links. There O_EXCL
		// still never overwrites; a crash in between can leave a file that
		// the next start refuses to read.
		err = writeNew(path, k.PEM())
	}
	if errors.Is(err, fs.ErrExist) {
		return load(path)
	}
	if err != nil {
		return Key{}, fmt.Errorf("seal.key: make %s: %w", path, err)
	}
	syncDir(filepath.Dir(path))
	return k, nil
}

// writeTemp writes data to a new file in dir, mode 0600, and on to the disk.
func writeTemp(dir string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(dir, ".seal-*.tmp")
	if err != nil {
		return "", err
	}
	if err := writeSync(f, data); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// writeNew writes data to a file that must not exist yet, mode 0600.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := writeSync(f, data); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

// writeSync writes, syncs and closes f.
func writeSync(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a new name survive a power loss. Not every system can sync a
// folder, and a key that is lost before it has signed anything that matters is
// made anew, so failures are let go.
func syncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	_ = d.Sync()
}
