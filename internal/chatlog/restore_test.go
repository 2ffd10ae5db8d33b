package chatlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

func mustAppend(t *testing.T, s *SQLite, after int64, id, text string) {
	t.Helper()
	if _, err := s.Append(t.Context(), "7", after, []chat.Row{logtest.Line(id, text)}); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestClosedLogIsOneFile(t *testing.T) {
	path := file(t)
	s := open(t, path)
	mustAppend(t, s, 0, "a", "하나")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	copyFile(t, path, copied)
	rows, err := open(t, copied).After(t.Context(), "7", 0, 10)
	if err != nil || len(rows) != 1 {
		t.Errorf("a copy of the file alone holds %d rows (%v), want 1", len(rows), err)
	}
}

func TestRestore(t *testing.T) {
	path := file(t)
	backup := filepath.Join(t.TempDir(), "backup.db")
	s := open(t, path)
	old := s.ID()
	mustAppend(t, s, 0, "a", "백업에 있는 줄")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, backup)
	s = open(t, path)
	mustAppend(t, s, 1, "b", "백업 뒤의 줄")

	if _, err := Restore(t.Context(), backup, path); !errors.Is(err, ErrInUse) {
		t.Fatalf("restore under a running server: got %v, want ErrInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	done, err := Restore(t.Context(), backup, path)
	if err != nil {
		t.Fatal(err)
	}
	if done.ID == old || done.ID == "" || done.Rows != 1 || done.Rooms != 1 {
		t.Errorf("restored %+v; want 1 row in 1 room and an id other than %s", done, old)
	}
	s = open(t, path)
	if s.ID() != done.ID {
		t.Errorf("the log has id %s, restore said %s", s.ID(), done.ID)
	}
	if rows, err := s.After(t.Context(), "7", 0, 10); err != nil || len(rows) != 1 || rows[0].ID != "a" {
		t.Errorf("after restore: %+v %v", rows, err)
	}
	kept := open(t, done.Kept)
	if rows, err := kept.After(t.Context(), "7", 0, 10); err != nil || len(rows) != 2 || kept.ID() != old {
		t.Errorf("the log that was there: %d rows %v, id %s; want 2 and %s", len(rows), err, kept.ID(), old)
	}
	mustAppend(t, s, 1, "c", "새로운 둘째 줄")
}

func TestRestoreRefusesWhatIsNoBackup(t *testing.T) {
	path := file(t)
	s := open(t, path)
	mustAppend(t, s, 0, "a", "하나")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	damaged := append([]byte{}, before...)
	for i := 4096; i < len(damaged); i++ {
		damaged[i] ^= 0x5a
	}
	for name, content := range map[string][]byte{"damaged.db": damaged, "text.db": bytes.Repeat([]byte("x"), 8192), "empty.db": nil} {
		from := filepath.Join(dir, name)
		if err := os.WriteFile(from, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), from, path); err == nil {
			t.Errorf("%s was restored", name)
		}
	}
	if _, err := Restore(t.Context(), filepath.Join(dir, "missing.db"), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing backup: got %v, want ErrNotExist", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("refused restores changed the log (%v)", err)
	}
}
