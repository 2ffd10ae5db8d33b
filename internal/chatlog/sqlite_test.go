package chatlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *SQLite {
	t.Helper()
	s, err := OpenSQLite(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func file(t *testing.T) string { return filepath.Join(t.TempDir(), "hanmadi.db") }

func TestSQLite(t *testing.T) {
	logtest.Run(t, func(t *testing.T) chat.Log { return open(t, file(t)) })
}

func TestTailOverSQLite(t *testing.T) {
	logtest.Run(t, func(t *testing.T) chat.Log { return NewTail(open(t, file(t)), 1<<20, nil) })
}

// A tail too small for even one append must still change no answer.
func TestTinyTail(t *testing.T) {
	logtest.Run(t, func(t *testing.T) chat.Log { return NewTail(logtest.NewMemory("M"), 1500, nil) })
}

// Another node's rows do not pass through this node's tail. It must neither
// join rows that they stand between, nor say that nothing follows its own.
func TestTailTakesRowsAtItsEndOnly(t *testing.T) {
	store := logtest.NewMemory("M")
	tail := NewTail(store, 1<<20, nil)
	add := func(log chat.Log, after int64) {
		t.Helper()
		if _, err := log.Append(t.Context(), "7", after, []chat.Row{logtest.Line(NewID(), "줄")}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(after int64) (seqs []int64) {
		t.Helper()
		for {
			rows, err := tail.After(t.Context(), "7", after, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) == 0 {
				return seqs
			}
			for _, row := range rows {
				seqs = append(seqs, row.Seq)
			}
			after = rows[len(rows)-1].Seq
		}
	}
	add(tail, 0)
	add(store, 1)
	add(tail, 2)
	if got, want := read(0), []int64{1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("another node's row between two of ours: got seqs %v, want %v", got, want)
	}
	add(store, 3)
	if got, want := read(3), []int64{4}; !slices.Equal(got, want) {
		t.Errorf("another node's row at the end: got seqs %v, want %v", got, want)
	}
}

func TestRowsSurviveReopening(t *testing.T) {
	path := file(t)
	s := open(t, path)
	id := s.ID()
	if _, err := s.Append(t.Context(), "7", 0, []chat.Row{logtest.Line("a", "하나")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	rows, err := s.After(t.Context(), "7", 0, 10)
	if err != nil || len(rows) != 1 || rows[0].Text != "하나" {
		t.Errorf("after reopening: %+v %v", rows, err)
	}
	if s.ID() != id {
		t.Errorf("log id changed from %s to %s by reopening", id, s.ID())
	}
	if _, err := s.Append(t.Context(), "7", 1, []chat.Row{logtest.Line("b", "둘")}); err != nil {
		t.Errorf("append after reopening: %v", err)
	}
}

func TestOneWriterPerFile(t *testing.T) {
	path := file(t)
	open(t, path)
	if _, err := OpenSQLite(t.Context(), path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("second writer: got %v, want ErrInUse", err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := file(t)
	s := open(t, path)
	if _, err := s.Append(t.Context(), "7", 0, []chat.Row{logtest.Line("a", "하나")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got&0o077 != 0 {
			t.Errorf("%s has mode %o: other users of the machine can read chat", filepath.Base(name), got)
		}
	}
}

// The path of the file may hold what means something in a URI.
func TestOddPaths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "100% 한글 #1?mode=memory", "log file.db")
	open(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestRefusesForeignFiles(t *testing.T) {
	for name, setup := range map[string]string{
		"another program's database": `CREATE TABLE t (a); PRAGMA application_id = 1`,
		"a database without a mark":  `CREATE TABLE t (a)`,
		"a newer schema":             fmt.Sprintf(`CREATE TABLE t (a); PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, len(migrations)+1),
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			exec(t, path, setup)
			if s, err := OpenSQLite(t.Context(), path, nil); err == nil {
				s.Close()
				t.Error("opened it")
			}
		})
	}
	t.Run("not a database", func(t *testing.T) {
		path := file(t)
		if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := OpenSQLite(t.Context(), path, nil); err == nil {
			s.Close()
			t.Error("opened it")
		}
	})
}

func exec(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

// The writer's own word on durability, asked of the connection that writes.
// That the sync really comes before the answer is shown from outside, by the
// traced run of the program in cmd/hanmadi.
func TestWriterIsSynchronous(t *testing.T) {
	s := open(t, file(t))
	var got int
	if err := s.writer.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&got); err != nil || got != 2 {
		t.Errorf("PRAGMA synchronous: got %d %v, want 2 (FULL)", got, err)
	}
	if n := s.writeDB.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d writer connections allowed, want 1", n)
	}
}

// TestAWriteThatDoesNotEnd: a disk that hangs fails no write, and must be
// noticed all the same.
func TestAWriteThatDoesNotEnd(t *testing.T) {
	s := open(t, file(t))
	for name, c := range map[string]struct {
		since time.Duration
		want  error
	}{"a moment": {time.Second, nil}, "too long": {time.Minute, errStuck}} {
		began := time.Now().Add(-c.since)
		s.began.Store(&began)
		if err := s.Check(t.Context()); !errors.Is(err, c.want) {
			t.Errorf("a write that has gone on for %s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := s.Append(t.Context(), "7", 0, []chat.Row{logtest.Line("a", "하나")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("after a write that ended: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	s := open(t, file(t))
	if _, err := s.Append(t.Context(), "7", 0, []chat.Row{logtest.Line("a", "하나")}); err != nil {
		t.Fatal(err)
	}
	limit := func(pages int) {
		t.Helper()
		if _, err := s.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite takes it for "no more than there are"
	var err error
	seq := int64(1)
	for i := 0; i < 1000 && err == nil; i++ {
		row := logtest.Line(fmt.Sprint("f", i), strings.Repeat("가", 500))
		if _, err = s.Append(t.Context(), "7", seq, []chat.Row{row}); err == nil {
			seq++
		}
	}
	if !errors.Is(err, chat.ErrLogUnavailable) {
		t.Fatalf("append to a full disk: got %v, want ErrLogUnavailable", err)
	}
	if rows, err := s.After(t.Context(), "7", 0, 2000); err != nil || int64(len(rows)) != seq {
		t.Errorf("reads go on: got %d rows %v, want %d", len(rows), err, seq)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Logf("check while full: %v", err) // a tiny write may still fit a page
	}
	limit(1 << 30)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check with room again: %v", err)
	}
	if _, err := s.Append(t.Context(), "7", seq, []chat.Row{logtest.Line("z", "끝")}); err != nil {
		t.Errorf("append with room again: %v", err)
	}
}

// An append that cannot be written must not take its neighbours in the group
// with it.
func TestPoisonedAppendFailsAlone(t *testing.T) {
	s := open(t, file(t))
	good := &appending{room: "good", rows: []chat.Row{logtest.Line("g", "좋은 줄")}}
	bad := &appending{room: "bad", rows: []chat.Row{logtest.Line("p", "나쁜 줄")}}
	bad.rows[0].ID = "g" // the id is unique over all rooms
	s.commitGroup([]*appending{good, bad})
	if good.err != nil || len(good.stored) != 1 {
		t.Errorf("the good append: %v %+v", good.err, good.stored)
	}
	if !errors.Is(bad.err, chat.ErrLogUnavailable) {
		t.Errorf("the bad append: got %v, want ErrLogUnavailable", bad.err)
	}
}

func TestGroupsGrowUnderLoad(t *testing.T) {
	s := open(t, file(t))
	const rooms = 64
	var wg sync.WaitGroup
	for r := range rooms {
		wg.Go(func() {
			for i := range int64(5) {
				if _, err := s.Append(context.Background(), fmt.Sprint("room", r), i, []chat.Row{logtest.Line(fmt.Sprintf("%d-%d", r, i), "줄")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	heads, err := s.Heads(t.Context(), []string{"room0", "room63"})
	if err != nil || heads["room0"] != 5 || heads["room63"] != 5 {
		t.Errorf("heads: %v %v", heads, err)
	}
}
