package chatlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
	"github.com/hanmadi/hanmadi/internal/text"
)

// openIndexed opens a log with its index.
func openIndexed(t *testing.T, path string, opts IndexOptions) *Index {
	t.Helper()
	x, err := OpenIndex(t.Context(), open(t, path), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestIndexOverSQLite(t *testing.T) {
	logtest.Run(t, func(t *testing.T) chat.Log { return openIndexed(t, file(t), IndexOptions{}) })
}

// While the index follows, whatever part of the room it holds at the moment.
func TestSearchWhileIndexing(t *testing.T) {
	logtest.RunSearch(t, func(t *testing.T) logtest.Searchable { return openIndexed(t, file(t), IndexOptions{}) })
}

// With an index that holds nothing, all is found in the log itself.
func TestSearchBeforeIndexing(t *testing.T) {
	logtest.RunSearch(t, func(t *testing.T) logtest.Searchable {
		return openIndexed(t, file(t), IndexOptions{Pause: func() bool { return true }})
	})
}

// settled searches only when the index holds every row.
type settled struct {
	*Index
	t *testing.T
}

func (s settled) Search(ctx context.Context, room string, words []string, before int64, limit int) ([]chat.Row, int64, error) {
	reached(s.t, "every row is indexed", func() bool { return s.Behind() == 0 })
	return s.Index.Search(ctx, room, words, before, limit)
}

func TestSearchWhenAllIsIndexed(t *testing.T) {
	logtest.RunSearch(t, func(t *testing.T) logtest.Searchable { return settled{openIndexed(t, file(t), IndexOptions{}), t} })
}

// found searches for one word in room 7.
func found(t *testing.T, x *Index, word string) (seqs []int64) {
	t.Helper()
	rows, _, err := x.Search(t.Context(), "7", []string{word}, 0, 50)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		seqs = append(seqs, row.Seq)
	}
	return seqs
}

func sayTo(t *testing.T, log chat.Log, after int64, texts ...string) {
	t.Helper()
	rows := make([]chat.Row, len(texts))
	for i, said := range texts {
		rows[i] = logtest.Line(fmt.Sprintf("%d-%d-%s", after, i, said), said)
	}
	if _, err := log.Append(t.Context(), "7", after, rows); err != nil {
		t.Fatal(err)
	}
}

// session opens log and index, lets what happens happen, and closes them when
// every row is indexed.
func session(t *testing.T, path string, happens func(*Index)) (indexed float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	s, err := OpenSQLite(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := OpenIndex(t.Context(), s, path, IndexOptions{Metrics: NewIndexMetrics(reg)})
	if err != nil {
		t.Fatal(err)
	}
	happens(x)
	reached(t, "every row is indexed", func() bool {
		_, at, err := x.positionOf(t.Context(), "7")
		head, err2 := s.Heads(t.Context(), []string{"7"})
		return err == nil && err2 == nil && at == head["7"] && x.Behind() == 0
	})
	if err := errors.Join(x.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return metric(t, reg, "hanmadi_search_indexed_rows_total")
}

func TestIndexGoesOnWhereItStood(t *testing.T) {
	path := file(t)
	if n := session(t, path, func(x *Index) { sayTo(t, x, 0, "안녕 하나", "둘") }); n != 2 {
		t.Errorf("indexed %v rows, want 2", n)
	}
	s := open(t, path) // a server with search switched off
	sayTo(t, s, 2, "안녕 셋")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n := session(t, path, func(x *Index) {
		sayTo(t, x, 3, "안녕 넷")
		reached(t, "all four are found", func() bool { return fmt.Sprint(found(t, x, "안녕")) == "[1 3 4]" })
	})
	if n != 2 {
		t.Errorf("indexed %v rows after a restart, want the 2 that are new", n)
	}
}

// An index that does not belong to the log is made anew, and by itself.
func TestIndexIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"other grams": func(t *testing.T, path string) {
			exec(t, IndexPath(path), `UPDATE meta SET value = '999' WHERE key = 'grams'`)
		},
		"another log": func(t *testing.T, path string) {
			exec(t, IndexPath(path), `UPDATE meta SET value = 'X' WHERE key = 'log_id'`)
		},
		"no origin":         func(t *testing.T, path string) { exec(t, IndexPath(path), `DELETE FROM meta`) },
		"other tables":      func(t *testing.T, path string) { exec(t, IndexPath(path), `DROP TABLE lines; CREATE TABLE lines (x)`) },
		"noise":             func(t *testing.T, path string) { spoilFile(t, IndexPath(path)) },
		"gone":              func(t *testing.T, path string) { removeAll(IndexPath(path)) },
		"ahead of the log":  func(t *testing.T, path string) { exec(t, path, `DELETE FROM chat_log WHERE seq > 1`) },
		"restored from one": func(t *testing.T, path string) { restoreOver(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			session(t, path, func(x *Index) { sayTo(t, x, 0, "안녕 하나", "둘 안녕", "셋 안녕") })
			spoil(t, path)
			s := open(t, path)
			head, err := s.Heads(t.Context(), []string{"7"})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			n := session(t, path, func(x *Index) {
				sayTo(t, x, head["7"], "새로 온 안녕")
				reached(t, "all that is in the log is found", func() bool { return int64(len(found(t, x, "안녕"))) == head["7"]+1 })
			})
			if n != float64(head["7"]+1) {
				t.Errorf("indexed %v rows, want all %d", n, head["7"]+1)
			}
			session(t, path, func(x *Index) {
				if got := found(t, x, "안녕"); int64(len(got)) != head["7"]+1 {
					t.Errorf("in the end %v are found, want %d", got, head["7"]+1)
				}
			})
		})
	}
}

func spoilFile(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func restoreOver(t *testing.T, path string) {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, path, backup)
	exec(t, backup, `UPDATE chat_log SET message = '다른 안녕' WHERE seq = 2`)
	if _, err := Restore(t.Context(), backup, path); err != nil {
		t.Fatal(err)
	}
}

// A batch that is cut off leaves position and grams together as they were.
func TestIndexBatchIsWholeOrNot(t *testing.T) {
	path := file(t)
	s := open(t, path)
	sayTo(t, s, 0, "안녕 하나", "안녕 둘", "안녕 셋")
	x, err := newIndex(t.Context(), s, path, IndexOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := x.release(); err != nil {
			t.Error(err)
		}
	}()
	x.note("7", span{0, 3})
	exec(t, path, `UPDATE chat_log SET data = '{' WHERE seq = 3`) // which cannot be read
	if _, err := x.step(t.Context()); err == nil {
		t.Fatal("a batch with a row that cannot be read went through")
	}
	if _, at, err := x.positionOf(t.Context(), "7"); err != nil || at != 0 || grams(t, x, "안녕") != 0 || x.Behind() != 3 {
		t.Errorf("after a batch that failed: position %d %v, %d rows, behind %d; want 0, 0 and 3", at, err, grams(t, x, "안녕"), x.Behind())
	}
	exec(t, path, `UPDATE chat_log SET data = NULL WHERE seq = 3`)
	if n, err := x.step(t.Context()); err != nil || n != 3 {
		t.Errorf("the batch again: %d %v, want 3", n, err)
	}
	if _, at, err := x.positionOf(t.Context(), "7"); err != nil || at != 3 || grams(t, x, "안녕") != 3 || x.Behind() != 0 {
		t.Errorf("after the batch: position %d %v, %d rows, behind %d; want 3, 3 and 0", at, err, grams(t, x, "안녕"), x.Behind())
	}
}

// grams counts the rows that the index itself has for a word.
func grams(t *testing.T, x *Index, word string) (n int) {
	t.Helper()
	if err := x.readDB.QueryRowContext(t.Context(), `SELECT count(*) FROM lines WHERE lines MATCH ?`, expression([]string{text.Fold(word)})).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRowsBehind(t *testing.T) {
	var pause atomic.Bool
	pause.Store(true)
	reg := prometheus.NewRegistry()
	x := openIndexed(t, file(t), IndexOptions{Metrics: NewIndexMetrics(reg), Pause: pause.Load})
	sayTo(t, x, 0, "하나", "둘")
	sayTo(t, x, 2, "셋")
	if got := metric(t, reg, "hanmadi_search_rows_behind"); got != 3 || x.Behind() != 3 {
		t.Errorf("behind: got %v and %d, want 3", got, x.Behind())
	}
	pause.Store(false)
	reached(t, "the index has caught up", func() bool { return metric(t, reg, "hanmadi_search_rows_behind") == 0 })
	if got := metric(t, reg, "hanmadi_search_indexed_rows_total"); got != 3 {
		t.Errorf("indexed: got %v, want 3", got)
	}
}

func TestReindex(t *testing.T) {
	path := logOf(t, indexBatch+500)
	var last [2]int64
	n, err := Reindex(t.Context(), path, func(done, total int64) { last = [2]int64{done, total} })
	if err != nil || n != indexBatch+502 || last[0] != n || last[1] != n {
		t.Errorf("reindex: %d rows, progress %v, %v; want %d", n, last, err, indexBatch+502)
	}
	if n := session(t, path, func(x *Index) {
		if got := found(t, x, "1234번째"); len(got) != 1 || got[0] != 1235 {
			t.Errorf("found %v, want 1235", got)
		}
	}); n != 0 {
		t.Errorf("a server on it indexed %v rows anew", n)
	}
	open(t, path)
	if _, err := Reindex(t.Context(), path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("under a server: got %v, want ErrInUse", err)
	}
	if _, err := Reindex(t.Context(), path+"x", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: got %v, want ErrNotExist", err)
	}
}

// The index has chat in it, and two searches at most have the machine.
func TestSearchIsPrivateAndBounded(t *testing.T) {
	path := file(t)
	x := openIndexed(t, path, IndexOptions{})
	sayTo(t, x, 0, "하나")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(IndexPath(path) + suffix)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s%s: %v %v: other users of the machine can read chat", filepath.Base(IndexPath(path)), suffix, info, err)
		}
	}
	for range searches {
		x.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := x.Search(ctx, "7", []string{"하나"}, 0, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("a search that gives up waiting: got %v, want Canceled", err)
	}
	for range searches {
		<-x.slots
	}
}
