package chatlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// openOn opens a log on a disk with as much free space as is said.
func openOn(t *testing.T, free *atomic.Int64, metrics *Metrics) *SQLite {
	t.Helper()
	s, err := openSQLite(t.Context(), file(t), metrics, func(string) (int64, error) { return free.Load(), nil })
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

// reached waits for a state.
func reached(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-deadline:
			t.Fatalf("this has not come about: %s", what)
		case <-tick.C:
		}
	}
}

func TestAppendsStopBeforeTheDiskIsFull(t *testing.T) {
	var free atomic.Int64
	free.Store(1000)
	s := openOn(t, &free, nil)
	s.KeepFree(500)
	mustAppend(t, s, 0, "a", "하나")

	free.Store(499)
	reached(t, "the disk is seen to be short", s.Short)
	row := []chat.Row{logtest.Line("b", "둘")}
	if _, err := s.Append(t.Context(), "7", 1, row); !errors.Is(err, chat.ErrLogUnavailable) || !errors.Is(err, errNoSpace) {
		t.Errorf("append: got %v, want ErrLogUnavailable for want of space", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, errNoSpace) {
		t.Errorf("check: got %v, want errNoSpace", err)
	}
	if rows, err := s.After(t.Context(), "7", 0, 10); err != nil || len(rows) != 1 {
		t.Errorf("reads go on: got %d rows %v, want 1", len(rows), err)
	}

	free.Store(500)
	reached(t, "the space is seen", func() bool { return !s.Short() })
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check with space again: %v", err)
	}
	if _, err := s.Append(t.Context(), "7", 1, row); err != nil {
		t.Errorf("append with space again: %v", err)
	}
}

func TestNothingIsKeptFreeUnlessSaid(t *testing.T) {
	var free atomic.Int64
	s := openOn(t, &free, nil)
	mustAppend(t, s, 0, "a", "하나")
	s.KeepFree(1)
	if !s.Short() {
		t.Error("a full disk is not seen at once")
	}
	s.KeepFree(0)
	mustAppend(t, s, 1, "b", "둘")
}

func TestDiskFreeIsThatOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	free, err := diskFree(dir)
	if err != nil || free <= 0 {
		t.Errorf("free: got %d %v", free, err)
	}
	if _, err := diskFree(dir + "/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no folder: got %v, want ErrNotExist", err)
	}
}

func TestDiskMetrics(t *testing.T) {
	var free atomic.Int64
	free.Store(12345)
	reg := prometheus.NewRegistry()
	s := openOn(t, &free, NewMetrics(reg))
	mustAppend(t, s, 0, "a", "하나")
	s.look()
	wal, err := os.Stat(s.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if got := metric(t, reg, "hanmadi_log_wal_bytes"); got != float64(wal.Size()) || got == 0 {
		t.Errorf("wal: got %v, want %d", got, wal.Size())
	}
	if got := metric(t, reg, "hanmadi_log_disk_free_bytes"); got != 12345 {
		t.Errorf("free: got %v, want 12345", got)
	}
}

// metric is the value of a gauge or a counter without labels.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// hold takes a snapshot of the log and keeps it, as a long statement does.
func hold(t *testing.T, s *SQLite) (release func()) {
	t.Helper()
	conn, err := s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err = conn.ExecContext(t.Context(), "BEGIN"); err == nil {
		err = conn.QueryRowContext(t.Context(), "SELECT count(*) FROM chat_log").Scan(&n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_, err := conn.ExecContext(context.Background(), "ROLLBACK")
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Error(err)
		}
	}
}

// While there is always a reader, each of them short, SQLite never starts its
// WAL anew by itself. The writer's fold does, in a moment between two of them.
func TestWALIsFolded(t *testing.T) {
	path := file(t)
	s := open(t, path)
	seq := int64(0)
	grow := func(n int) {
		t.Helper()
		rows := make([]chat.Row, n)
		for i := range rows {
			rows[i] = logtest.Line(fmt.Sprint("r", seq+int64(i)), strings.Repeat("가", 500))
		}
		if _, err := s.Append(t.Context(), "7", seq, rows); err != nil {
			t.Fatal(err)
		}
		seq += int64(n)
	}
	release := hold(t, s)
	for range 3 {
		grow(2000) // more than the 1,000 pages at which SQLite copies them into the file
		next := hold(t, s)
		release()
		release = next
	}
	before := walSize(t, path)
	if one := int64(1000 * 4096); before < 2*one {
		t.Errorf("the WAL has %d bytes: it was started anew, and what the fold is for has gone", before)
	}
	release()
	s.foldDue.Store(true)
	grow(1)
	if after := walSize(t, path); after > before/4 {
		t.Errorf("after the fold the WAL has %d bytes, before it %d", after, before)
	}
}

func walSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A reader that stays, as a backup does, must not stop the writer.
func TestFoldGivesUpOnALongReader(t *testing.T) {
	s := open(t, file(t))
	mustAppend(t, s, 0, "a", "하나")
	release := hold(t, s)
	mustAppend(t, s, 1, "b", "둘")
	s.foldDue.Store(true)
	mustAppend(t, s, 2, "c", "셋")
	s.foldDue.Store(true) // too soon after the first
	mustAppend(t, s, 3, "d", "넷")
	release()
	if err := s.Close(); err != nil { // after which the writing goroutine's fields can be read
		t.Fatal(err)
	}
	if s.folded.IsZero() {
		t.Error("a fold with a reader in its way counts as done")
	}
}
