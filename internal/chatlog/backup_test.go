package chatlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// A reader works beside the writer, and what it needs of the file it says.
func TestReaderBesideTheWriter(t *testing.T) {
	path := file(t)
	if _, err := OpenReader(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v, want ErrNotExist", err)
	}
	s := open(t, path)
	mustAppend(t, s, 0, "a", "하나")
	r := openReader(t, path)
	mustAppend(t, s, 1, "b", "둘")
	if rows, err := r.After(t.Context(), "7", 0, 10); err != nil || len(rows) != 2 || r.ID() != s.ID() {
		t.Errorf("reader: %d rows %v, id %s; want 2 and %s", len(rows), err, r.ID(), s.ID())
	}
	if _, err := r.db.ExecContext(t.Context(), `DELETE FROM chat_log`); err == nil {
		t.Error("a reader can write")
	}
}

func TestReaderRefusesForeignFiles(t *testing.T) {
	for name, setup := range map[string]string{
		"another program's database": `CREATE TABLE t (a); PRAGMA application_id = 1`,
		"a newer schema":             fmt.Sprintf(`CREATE TABLE t (a); PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, len(migrations)+1),
		"an older schema":            fmt.Sprintf(`CREATE TABLE t (a); PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, len(migrations)-1),
	} {
		path := file(t)
		exec(t, path, setup)
		if r, err := OpenReader(t.Context(), path); err == nil {
			r.Close()
			t.Errorf("opened %s", name)
		}
	}
}

func TestWalkAndRooms(t *testing.T) {
	r := openReader(t, logOf(t, walkPage+10))
	var rooms []string
	for room, err := range r.Rooms(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, room)
	}
	if got := strings.Join(rooms, " "); got != "7 8" {
		t.Errorf("rooms: got %q, want 7 8", got)
	}
	for _, c := range []struct{ after, before, first, last int64 }{{0, 0, 1, walkPage + 10}, {5, 0, 6, walkPage + 10}, {0, 1005, 1, 1004}, {3, 5, 4, 4}, {3, 4, 0, 0}, {9999, 0, 0, 0}} {
		var first, last, n int64
		for row, err := range r.Walk(t.Context(), "7", c.after, c.before) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; first == 0 {
				first = row.Seq
			}
			last = row.Seq
		}
		if first != c.first || last != c.last || n > 0 && n != last-first+1 {
			t.Errorf("after %d before %d: got %d rows from %d to %d, want %d to %d", c.after, c.before, n, first, last, c.first, c.last)
		}
	}
}

// A backup is one moment of a log that is being written: in every room a
// prefix, with everything that was answered before it began.
func TestBackupBesideTheWriter(t *testing.T) {
	path := file(t)
	s := open(t, path)
	const rooms = 8
	ctx, stop := context.WithCancel(t.Context())
	heads := make([]chan int64, rooms)
	var wg sync.WaitGroup
	for i := range rooms {
		heads[i] = make(chan int64, 1)
		wg.Go(func() {
			for seq := int64(0); ctx.Err() == nil; seq++ {
				if _, err := s.Append(context.Background(), fmt.Sprint(i), seq, []chat.Row{logtest.Line(fmt.Sprintf("%d-%d", i, seq), strings.Repeat("가", 200))}); err != nil {
					t.Error(err)
					return
				}
				if seq+1 == 20 {
					heads[i] <- seq + 1
				}
			}
		})
	}
	answered := map[string]int64{}
	for i, head := range heads {
		answered[fmt.Sprint(i)] = <-head
	}
	to := filepath.Join(t.TempDir(), "backup.db")
	var last [2]int64
	err := openReader(t, path).Backup(t.Context(), to, 0, func(done, total int64) { last = [2]int64{done, total} })
	stop()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if last[0] > last[1] {
		t.Errorf("progress: %d of %d pages", last[0], last[1])
	}
	whole, _ := verified(t, path)
	copied, problems := verified(t, to)
	if problems != "" {
		t.Errorf("the backup: %s", problems)
	}
	for room, head := range answered {
		if got := copied[room].Head; got < head || got > whole[room].Head {
			t.Errorf("room %s: the backup has %d rows, %d were answered before it and %d in the end", room, got, head, whole[room].Head)
		}
	}
	wantOneFile(t, to)
}

// wantOneFile checks that a file can be read where nothing can be written, and
// by nobody else.
func wantOneFile(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the backup: %v %v", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v %v: other users of the machine can read chat", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil || data[18] != 1 || data[19] != 1 {
		t.Errorf("versions in the header: %v %v, want 1 and 1: the file wants a WAL beside it", data[18:20], err)
	}
}

func TestBackupOverwritesNothing(t *testing.T) {
	r := openReader(t, logOf(t, 3))
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken.db")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(dir, "dangling.db")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), dangling); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{taken, dangling} {
		if err := r.Backup(t.Context(), to, 0, nil); !errors.Is(err, os.ErrExist) {
			t.Errorf("backup to %s: got %v, want ErrExist", filepath.Base(to), err)
		}
	}
	late := filepath.Join(dir, "late.db") // comes to be while the copy is made
	err := r.Backup(t.Context(), late, 0, func(int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := moveNew(taken, late); !errors.Is(err, os.ErrExist) {
		t.Errorf("moving over a file that came to be: got %v, want ErrExist", err)
	}
	if data, err := os.ReadFile(taken); err != nil || string(data) != "mine" {
		t.Errorf("the file that was there holds %q %v", data, err)
	}
}

func TestBackupThatFailsLeavesNothing(t *testing.T) {
	path := logOf(t, 10)
	exec(t, path, `WITH RECURSIVE n(i) AS (SELECT 11 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
		INSERT INTO chat_log SELECT NULL, '7', i, 'n' || i, '', 'message', '42', '', hex(zeroblob(2000)), 1795341600123, 'n' || i, NULL, NULL FROM n`)
	r := openReader(t, path)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	err := r.Backup(ctx, filepath.Join(dir, "cut.db"), 0, func(int64, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a backup that is stopped half way: got %v, want Canceled", err)
	}
	if err := r.Backup(t.Context(), filepath.Join(dir, "full.db"), 1<<60, nil); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("a backup that would fill the disk: got %v, want it refused", err)
	}
	if err := r.Backup(t.Context(), filepath.Join(dir, "nowhere", "x.db"), 0, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup to no folder: got %v, want ErrNotExist", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestBackupIsRestored(t *testing.T) {
	path, backup := logOf(t, 100), filepath.Join(t.TempDir(), "backup.db")
	r := openReader(t, path)
	if err := r.Backup(t.Context(), backup, 0, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := verified(t, path)
	done, err := Restore(t.Context(), backup, file(t))
	if err != nil || done.ID == r.ID() || done.Rows != 102 {
		t.Fatalf("restored %+v %v, want 102 rows under another id than %s", done, err, r.ID())
	}
	after, problems := verified(t, backup)
	if problems != "" || after["7"].Hash != before["7"].Hash {
		t.Errorf("the hash changed on the way: %s, was %s (%s)", after["7"].Hash, before["7"].Hash, problems)
	}
}
