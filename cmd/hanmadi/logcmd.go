package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/progress"
)

type logCmd struct {
	Export  exportCmd  `cmd:"" help:"Write a log's rows as NDJSON or CSV. A server may run on it."`
	Backup  backupCmd  `cmd:"" help:"Copy a log to a file as it stands now. A server may run on it."`
	Verify  verifyCmd  `cmd:"" help:"Check a log: no gap, no double, times in order, a hash for each room. A server may run on it."`
	Reindex reindexCmd `cmd:"" help:"Make the search index of a log anew. No server may run on it."`
	Restore restoreCmd `cmd:"" help:"Put a backup in the place of the log, under a new log id. No server may run on it."`
}

// Help is shown under --help.
func (logCmd) Help() string {
	return `A night's backup that is known to be good:

  hanmadi log backup --to /backups/tonight.db
  hanmadi log verify --quiet /backups/tonight.db

Two copies of a room that hold the same rows have the same hash in what verify prints.`
}

// path is the log's file.
func (c LogFile) path() (string, error) {
	path, err := chatlog.Path(c.URL)
	if err != nil {
		return "", usageError{err}
	}
	return path, nil
}

// untilSignal is a context that a signal ends.
func untilSignal(signals <-chan os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		select {
		case sig := <-signals:
			cancel(fmt.Errorf("stopped by a signal (%s)", sig))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

type backupCmd struct {
	To    string   `required:"" placeholder:"FILE" help:"The copy. A file of that name is never overwritten."`
	Log   LogFile  `embed:"" prefix:"log."`
	Space LogSpace `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (backupCmd) Help() string {
	return `The copy is the log at one moment: every line that was answered before the command began is in it. It is one file, appears under its name only when it is whole and on the disk, and hanmadi log restore takes it back. Where it would leave less than log.min_free of its disk nothing is begun. While it is written the log's WAL grows by what is said meanwhile, and shrinks again afterwards.`
}

// Run copies.
func (c *backupCmd) Run(s streams, signals <-chan os.Signal) error {
	path, err := c.Log.path()
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal(signals)
	defer cancel()
	log, err := chatlog.OpenReader(ctx, path)
	if err != nil {
		return err
	}
	defer log.Close()
	bar := progress.New(s.err, "backup")
	err = log.Backup(ctx, c.To, c.Space.MinFree, bar.Set)
	bar.Done()
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	info, err := os.Stat(c.To)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s holds log %s, %d bytes.\n", c.To, log.ID(), info.Size())
	return nil
}

type verifyCmd struct {
	File  string  `arg:"" optional:"" help:"The log's file, such as a backup. Without it the configured log."`
	Quiet bool    `short:"q" help:"Print problems only."`
	Log   LogFile `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (verifyCmd) Help() string {
	return `One line for each room: its name, how many rows, the last seq, and SHA-256 over the rows; then one for each problem. Exit status 1 when there is any. Rows missing at the end of a room are no gap: compare head and hash with those of another copy. The hash is over the columns seq, id, room_idx, kind, user_idx, nickname, message, time, idem, data, staff of each row, in the order of seq, each as a netstring ("5:hello,"), NULL as "-,". The file itself is checked by SQLite (integrity_check), and its schema is compared with this program's.`
}

// Run verifies.
func (c *verifyCmd) Run(s streams, signals <-chan os.Signal) error {
	path, err := c.Log.path()
	if err != nil {
		return err
	}
	if c.File != "" {
		path = c.File
	}
	ctx, cancel := untilSignal(signals)
	defer cancel()
	log, err := chatlog.OpenReader(ctx, path)
	if err != nil {
		return err
	}
	defer log.Close()
	found := 0
	problems, err := log.Verify(ctx, func(room chatlog.RoomReport) error {
		found += len(room.Problems)
		return c.print(s, room)
	})
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	for _, problem := range problems {
		fmt.Fprintln(s.out, problem)
	}
	if found += len(problems); found > 0 {
		return fmt.Errorf("log %s: problems were found", path)
	}
	return nil
}

func (c *verifyCmd) print(s streams, room chatlog.RoomReport) error {
	if !c.Quiet {
		if _, err := fmt.Fprintf(s.out, "room %s: %d rows, head %d, sha256 %s\n", room.Room, room.Rows, room.Head, room.Hash); err != nil {
			return err
		}
	}
	for _, problem := range room.Problems {
		if _, err := fmt.Fprintf(s.out, "room %s: %s\n", room.Room, problem); err != nil {
			return err
		}
	}
	return nil
}

type reindexCmd struct {
	Log LogFile `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (reindexCmd) Help() string {
	return "The index is a file beside the log (hanmadi.search.db). A server makes it by itself when it is missing, damaged or of another log, slowly and beside its work; this does it at full speed, and also where an index is wrong in a way that cannot be seen."
}

// Run makes it anew.
func (c *reindexCmd) Run(s streams, signals <-chan os.Signal) error {
	path, err := c.Log.path()
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal(signals)
	defer cancel()
	bar := progress.New(s.err, "reindex")
	rows, err := chatlog.Reindex(ctx, path, bar.Set)
	bar.Done()
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	fmt.Fprintf(s.out, "%s has %d rows in it.\n", chatlog.IndexPath(path), rows)
	return nil
}

type restoreCmd struct {
	From string  `required:"" placeholder:"FILE" help:"The backup: what hanmadi log backup wrote, or a copy of the file of a log that is closed."`
	Log  LogFile `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (restoreCmd) Help() string {
	return "The log that was there is kept beside it. Clients whose cursors belong to the lost rows see the new log id and start over. No server may run on the log."
}

// Run restores.
func (c *restoreCmd) Run(s streams, signals <-chan os.Signal) error {
	path, err := c.Log.path()
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal(signals)
	defer cancel()
	done, err := chatlog.Restore(ctx, c.From, path)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s holds the backup's %d rows in %d rooms; its log id is %s.\n", path, done.Rows, done.Rooms, done.ID)
	if done.Kept != "" {
		fmt.Fprintf(s.out, "What was there before is %s.\n", done.Kept)
	}
	return nil
}
