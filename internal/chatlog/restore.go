package chatlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Restored says what Restore did.
type Restored struct {
	ID          string // the log's new id
	Rows, Rooms int64
	Kept        string // where the file is that was there before; "" when there was none
}

// Restore puts a backup in the place of the log at path. The backup is checked
// and copied first; only a whole copy takes the place, and the file that was
// there is renamed, never overwritten. The log gets a new id, because cursors
// beyond the backup's end name rows that may come to be others. ErrInUse while
// a server has the log open.
func Restore(ctx context.Context, from, path string) (r Restored, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return r, err
	}
	lock, err := lockFile(path)
	if err != nil {
		return r, err
	}
	defer lock.Close()
	fresh := path + ".restoring"
	defer removeAll(fresh)
	removeAll(fresh)
	if err := copyChecked(ctx, from, fresh); err != nil {
		return r, fmt.Errorf("backup %s: %w", from, err)
	}
	if err := rename(ctx, fresh, &r); err != nil {
		return r, fmt.Errorf("backup %s: %w", from, err)
	}
	if r.Kept, err = setAside(path); err != nil {
		return r, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return r, err
	}
	return r, syncDir(filepath.Dir(path))
}

// copyChecked copies a log through SQLite, so that rows which stand in the
// backup's WAL come along.
func copyChecked(ctx context.Context, from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(from, "mode=ro"))
	if err != nil {
		return err
	}
	defer db.Close()
	var app int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&app); err != nil {
		return err
	}
	if app != applicationID {
		return errors.New("not a log of hanmadi")
	}
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("it is damaged: %s", verdict)
	}
	if err := touch(to); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	return err
}

// rename gives the copy a new id and counts what it holds.
func rename(ctx context.Context, path string, r *Restored) (err error) {
	s := &SQLite{Reader: Reader{path: path}}
	if err := s.openWriter(ctx); err != nil {
		return errors.Join(err, s.release())
	}
	defer func() { err = errors.Join(err, s.release()) }()
	r.ID = NewID()
	if _, err := s.writer.ExecContext(ctx, `UPDATE meta SET value = ? WHERE key = 'log_id'`, r.ID); err != nil {
		return err
	}
	return s.writer.QueryRowContext(ctx, `SELECT count(*), count(DISTINCT presenter_idx) FROM chat_log`).Scan(&r.Rows, &r.Rooms)
}

// walFiles are a database's companions. They move before it does: a WAL that
// stays behind would be played into the file that takes the place.
var walFiles = []string{"-wal", "-shm", ""}

func setAside(path string) (kept string, err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	kept = path + ".before-" + time.Now().UTC().Format("20060102T150405.000Z")
	for _, suffix := range walFiles {
		if err := os.Rename(path+suffix, kept+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return kept, nil
}

func removeAll(path string) {
	for _, suffix := range walFiles {
		_ = os.Remove(path + suffix) // left from a run that was cut off, or not there
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
