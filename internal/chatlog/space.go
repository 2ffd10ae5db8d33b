package chatlog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

const (
	// lookEvery is how often the disk is looked at. At 100 MB/s, more than one
	// writer comes to, a second takes less than half of what is kept free.
	lookEvery = time.Second

	// foldAt is the size from which the WAL is folded by force, in bytes.
	//
	// SQLite's checkpoint after every 1,000 pages copies the WAL into the file,
	// but it starts the WAL anew only at a moment in which nobody reads from it.
	// Measured with 16 rooms that append and 8 readers that always read: it never
	// came, and the WAL grew by 8 MB a second, to 159 MB in 20 s, where
	// journal_size_limit does nothing. With the fold below it stayed under
	// foldAt and what one second brings.
	foldAt = 64 << 20

	// foldWait is how long the writer waits for readers then. Pages of rows are
	// read in less; a backup or an integrity_check is not, and must not hold
	// lines up.
	foldWait = 100 * time.Millisecond

	// foldAgain is how long it is left alone after readers were in the way.
	foldAgain = 5 * time.Second
)

// errNoSpace is why appends are refused before the disk is full. SQLite needs
// room to fold its WAL, and so do those who come to make some.
var errNoSpace = errors.New("less space is free on the log's disk than log.min_free")

// KeepFree has appends refused while less than so many bytes are free on the
// log's disk; 0: never. They are taken again when there is space.
func (s *SQLite) KeepFree(bytes int64) {
	s.keepFree.Store(bytes)
	s.look()
}

// Short reports whether appends are refused for want of space.
func (s *SQLite) Short() bool { return s.short.Load() }

// watch looks at the disk now and then, in a goroutine of its own: a slow disk
// then delays neither a line nor who asks for the metrics.
func (s *SQLite) watch() {
	defer close(s.watched)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.unwatch:
			return
		case <-tick.C:
			s.look()
		}
	}
}

func (s *SQLite) look() {
	if free, err := s.diskFree(filepath.Dir(s.path)); err == nil {
		s.short.Store(free < s.keepFree.Load())
		s.metrics.free.Set(float64(free))
	}
	if wal, err := os.Stat(s.path + "-wal"); err == nil {
		s.metrics.wal.Set(float64(wal.Size()))
		if wal.Size() > foldAt {
			s.foldDue.Store(true)
			s.nudge()
		}
	}
}

// fold empties the WAL, when it is due. Between two groups the writer is the
// only one who could fill it, and readers that begin now read from the file.
func (s *SQLite) fold() {
	if !s.foldDue.Swap(false) || time.Since(s.folded) < foldAgain {
		return
	}
	ctx := context.Background()
	var busy, frames, copied int
	_, err := s.writer.ExecContext(ctx, pragmaBusy(foldWait))
	if err == nil {
		err = s.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied)
	}
	_, _ = s.writer.ExecContext(ctx, pragmaBusy(busyWait)) // fails only where the append that follows does
	if err != nil || busy != 0 {
		s.folded = time.Now()
	}
}
