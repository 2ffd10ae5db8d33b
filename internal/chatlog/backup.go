package chatlog

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
)

// Progress hears how far a long job is. Total may still change.
type Progress func(done, total int64)

// orNobody lets callers leave it out.
func (p Progress) orNobody() Progress {
	if p == nil {
		return func(int64, int64) {}
	}
	return p
}

// backupStep is how many pages are copied between two looks at the context.
const backupStep = 1024

// Backup copies the log to a new file as it stands at this moment, beside the
// process that writes it. The copy appears under its name when it is whole and
// on the disk, and never in the place of another file. keepFree is what must
// stay free where it is written, in bytes.
//
// SQLite's backup API copies pages as they are, and tells how many are left.
// By itself it starts over whenever another process commits, which under load
// is for ever; so one read transaction is held around all its steps. VACUUM
// INTO needs that too, rebuilds every page, and tells nothing meanwhile (1,000,000
// rows took it 2.2 to 3.5 s, and this 1.6 to 1.9 s). For as long as the copy takes,
// the WAL cannot be folded behind the reader and grows by what is written.
func (r *Reader) Backup(ctx context.Context, to string, keepFree int64, progress Progress) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("backup %s: %w", to, err)
		}
	}()
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return cmp.Or(err, os.ErrExist)
	}
	part, err := newPart(to)
	if err != nil {
		return err
	}
	defer removeAll(part)
	if err := r.copyTo(ctx, part, keepFree, progress.orNobody()); err != nil {
		return err
	}
	if err := asOneFile(ctx, part); err != nil {
		return err
	}
	if err := syncFile(part); err != nil {
		return err
	}
	if err := moveNew(part, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// newPart makes the file that is written to, beside the one it will be.
func newPart(to string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*.part")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

func (r *Reader) copyTo(ctx context.Context, part string, keepFree int64, progress Progress) error {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }()
	var size int64 // reading it takes the snapshot
	err = conn.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM sqlite_schema) * 0 +
		(SELECT page_count FROM pragma_page_count) * (SELECT page_size FROM pragma_page_size)`).Scan(&size)
	if err != nil {
		return err
	}
	if free, err := diskFree(filepath.Dir(part)); err == nil && free-size < keepFree {
		return fmt.Errorf("no room: the copy takes %d bytes of the %d that are free, and log.min_free keeps %d of them", size, free, keepFree)
	}
	return conn.Raw(func(driver any) error {
		source, ok := driver.(interface {
			NewBackup(to string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("the SQLite driver has no backup")
		}
		// It is synced as a whole when it is whole, and needs no journal before.
		b, err := source.NewBackup(dsn(part, "_pragma=synchronous(off)&_pragma=journal_mode(off)"))
		if err != nil {
			return err
		}
		return errors.Join(stepAll(ctx, b, progress), b.Finish())
	})
}

func stepAll(ctx context.Context, b *sqlite.Backup, progress Progress) error {
	for {
		more, err := b.Step(backupStep)
		if err != nil || !more {
			return err
		}
		progress(int64(b.PageCount()-b.Remaining()), int64(b.PageCount()))
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// asOneFile takes the mark of the WAL out of a copy, so that it can be read
// where nothing can be written beside it.
func asOneFile(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", dsn(path, ""))
	if err != nil {
		return err
	}
	defer db.Close()
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode); err != nil {
		return err
	}
	if mode != "delete" {
		return fmt.Errorf("the copy has journal_mode %s, not delete", mode)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// moveNew gives a file its name unless another has it. A hard link is refused
// where the name is taken, a rename is not; file systems without links (FAT)
// get the rename, and the moment between it and the look.
func moveNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, os.ErrExist) {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, os.ErrNotExist) {
		return cmp.Or(err, os.ErrExist)
	}
	return os.Rename(from, to)
}
