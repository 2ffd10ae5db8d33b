package chatlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/oklog/ulid/v2"
	_ "modernc.org/sqlite" // registers the driver "sqlite"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// NewID makes a ULID (github.com/ulid/spec): 48 bits of milliseconds and 80
// random ones, 26 characters that sort by time. Safe for concurrent use.
func NewID() string { return ulid.Make().String() }

// SQLite is the embedded log: one file, one writing process, any number of
// readers. It implements [chat.Log].
//
// Writes are grouped: while one commit is on its way to the disk, whatever
// arrives waits for the next, so throughput grows with load and a lone line
// waits for nobody.
type SQLite struct {
	Reader // set once

	// Set once.
	lock    *flock.Flock
	metrics *Metrics
	writer  *sql.Conn
	writeDB *sql.DB
	write   writeStmts
	done    chan struct{} // closed when the writing goroutine has ended

	// Set once: how the disk is looked at, and the end of that.
	diskFree         func(path string) (int64, error)
	unwatch, watched chan struct{}

	mu      sync.Mutex
	waiting []*appending  // guarded by mu
	closed  bool          // guarded by mu
	wake    chan struct{} // capacity 1, never closed

	heads  map[string]head // owned by the writing goroutine
	folded time.Time       // owned by the writing goroutine: when folding the WAL last failed

	keepFree       atomic.Int64 // see KeepFree
	short, foldDue atomic.Bool

	failing atomic.Pointer[error]     // what the last write came to, nil when it was well
	began   atomic.Pointer[time.Time] // when the group under way began; nil: none is
}

var _ chat.Log = (*SQLite)(nil)

// ErrInUse says that another process writes this log.
var ErrInUse = errors.New("another process has this log open for writing")

// The writer's promises: a commit returns after fsync (synchronous=FULL), and
// readers never wait for it (WAL).
const (
	writerPragmas = "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=foreign_keys(on)&_pragma=trusted_schema(off)&_pragma=journal_size_limit(67108864)"
	readerPragmas = "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(on)&_pragma=trusted_schema(off)"
	readers       = 4
	busyWait      = 5 * time.Second // as in the pragmas
)

func pragmaBusy(d time.Duration) string {
	return fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds())
}

// OpenSQLite opens the log at path for writing, making the file and its folder
// when they are missing. It takes the lock path+".lock" for as long as it is
// open; ErrInUse when another process holds it. Metrics may be nil.
func OpenSQLite(ctx context.Context, path string, metrics *Metrics) (*SQLite, error) {
	return openSQLite(ctx, path, metrics, diskFree)
}

func openSQLite(ctx context.Context, path string, metrics *Metrics, free func(path string) (int64, error)) (_ *SQLite, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	s := &SQLite{Reader: Reader{path: path}, metrics: metrics.orNew(), wake: make(chan struct{}, 1), done: make(chan struct{}), heads: map[string]head{},
		diskFree: free, unwatch: make(chan struct{}), watched: make(chan struct{})}
	if s.lock, err = lockFile(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.release()
			err = fmt.Errorf("log %s: %w", path, err)
		}
	}()
	if err := touch(path); err != nil {
		return nil, err
	}
	if err := s.openWriter(ctx); err != nil {
		return nil, err
	}
	if err := s.connect(readers); err != nil {
		return nil, err
	}
	if err := s.read.prepare(ctx, s.db); err != nil {
		return nil, err
	}
	go s.writeLoop()
	go s.watch()
	return s, nil
}

func lockFile(path string) (*flock.Flock, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	held, err := lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, fmt.Errorf("log %s: %w", path, ErrInUse)
	}
	return lock, nil
}

// touch makes the file with a mode that keeps chat from other users of the
// machine; SQLite gives its WAL the same mode.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// dsn writes a file name as SQLite's URI, where ?, # and % have meanings.
func dsn(path, pragmas string) string {
	return "file:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() + "?" + pragmas
}

func (s *SQLite) openWriter(ctx context.Context) (err error) {
	if s.writeDB, err = sql.Open("sqlite", dsn(s.path, writerPragmas)); err != nil {
		return err
	}
	s.writeDB.SetMaxOpenConns(1)
	if s.writer, err = s.writeDB.Conn(ctx); err != nil {
		return err
	}
	if err := checkDurable(ctx, s.writer); err != nil {
		return err
	}
	if err := migrate(ctx, s.writer, NewID); err != nil {
		return err
	}
	if err := s.writer.QueryRowContext(ctx, `SELECT value FROM meta WHERE key = 'log_id'`).Scan(&s.id); err != nil {
		return err
	}
	return s.write.prepare(ctx, s.writer)
}

// checkDurable asks the connection what it really does: a pragma that was
// misspelt or overruled is silent otherwise, and the 201s would be lies.
func checkDurable(ctx context.Context, conn *sql.Conn) error {
	var mode string
	var synchronous int
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return err
	}
	if mode != "wal" || synchronous != 2 {
		return fmt.Errorf("the writer has journal_mode=%s synchronous=%d, not wal and 2: its commits would not survive power loss", mode, synchronous)
	}
	return nil
}

// Close writes what waits, folds the WAL into the file and gives up the lock.
func (s *SQLite) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	close(s.unwatch)
	<-s.watched
	s.nudge()
	<-s.done
	return s.release()
}

func (s *SQLite) release() error {
	errs := []error{s.Reader.Close()} // readers first, so that the last connection can fold the WAL
	if s.writer != nil {
		// So that the file alone is the log while nobody has it open.
		_, err := s.writer.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
		errs = append(errs, err, s.writer.Close())
	}
	if s.writeDB != nil {
		errs = append(errs, s.writeDB.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// stuckAfter is when a group that is being written counts as one that will not
// end: as long as a line waits for it.
const stuckAfter = 5 * time.Second

var errStuck = fmt.Errorf("%w: a write has not ended for %v", chat.ErrLogUnavailable, stuckAfter)

// Check says whether rows can be written. After a failed write it tries a small
// one, so that a disk that has room again is noticed without a line being lost
// to find out. A write that does not end has failed as well, for whoever waits.
func (s *SQLite) Check(ctx context.Context) error {
	if s.short.Load() {
		return errNoSpace
	}
	if began := s.began.Load(); began != nil && time.Since(*began) > stuckAfter {
		return errStuck
	}
	if s.failing.Load() == nil {
		return nil
	}
	_, err := s.submit(ctx, &appending{probe: true})
	return err
}

// Path takes the file's name from a log URL, "sqlite:./data/hanmadi.db".
func Path(logURL string) (string, error) {
	path, ok := strings.CutPrefix(logURL, "sqlite:")
	path = strings.TrimPrefix(path, "//")
	if !ok || path == "" {
		return "", fmt.Errorf("log.url %q: want sqlite: and a file, such as sqlite:./data/hanmadi.db", logURL)
	}
	return path, nil
}

// ms is how times are stored: milliseconds since 1970, UTC.
func ms(t time.Time) int64 { return t.UnixMilli() }
