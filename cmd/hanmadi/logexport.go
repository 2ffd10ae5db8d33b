package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog"
	"github.com/hanmadi/hanmadi/internal/export"
	"github.com/hanmadi/hanmadi/internal/progress"
)

type exportCmd struct {
	To        string    `placeholder:"FILE" help:"Write to this file, which must not be there yet. Without it to standard output."`
	Format    string    `default:"ndjson" enum:"ndjson,csv" help:"ndjson, one event a line, or csv."`
	Public    bool      `help:"Only what viewers may see."`
	BOM       bool      `name:"bom" help:"Begin CSV with a byte order mark, for Excel."`
	Room      string    `help:"Only this room."`
	Broadcast string    `help:"Only rows of this broadcast."`
	After     int64     `help:"With --room: only rows after this seq."`
	Before    int64     `help:"With --room: only rows before this seq."`
	Since     time.Time `placeholder:"TIME" help:"Only rows from this time on, such as 2026-11-22T19:00:00+09:00."`
	Until     time.Time `placeholder:"TIME" help:"Only rows before this time."`
	Log       LogFile   `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (exportCmd) Help() string {
	return `Room by room, in the order of seq. By default all of a row is written, with what only staff may see: whoever can read the file has all of it, and an export that leaves things out is no record. --public writes what viewers may see, with hidden rows in their place; give that one away.

NDJSON is the faithful format. In CSV (UTF-8, commas, a header) a cell that begins with = + - @ or a tab gets an apostrophe in front, or a spreadsheet would run what a stranger typed as a formula.`
}

// Run exports.
func (c *exportCmd) Run(s streams, signals <-chan os.Signal) (err error) {
	if err := c.check(); err != nil {
		return usageError{err}
	}
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
	out, done, err := c.output(s.out)
	if err != nil {
		return err
	}
	bar := progress.New(s.err, "export")
	err = c.write(ctx, log, out, bar)
	bar.Done()
	if err != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return done(err)
}

func (c *exportCmd) check() error {
	switch {
	case c.Room == "" && (c.After != 0 || c.Before != 0):
		return errors.New("--after and --before are places in a room: name it with --room")
	case c.After < 0 || c.Before < 0:
		return errors.New("--after and --before must not be negative")
	case c.Room != "" && !chat.ValidID(c.Room):
		return errors.New("--room is not the id of a room")
	}
	return nil
}

// output opens what is written to. done ends it: half an export does not stay.
func (c *exportCmd) output(stdout io.Writer) (out io.Writer, done func(error) error, err error) {
	if c.To == "" {
		return stdout, func(err error) error { return err }, nil
	}
	file, err := os.OpenFile(c.To, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return file, func(err error) error {
		if err == nil {
			err = file.Sync()
		}
		if err = errors.Join(err, file.Close()); err != nil {
			_ = os.Remove(c.To) // the error that is told already
		}
		return err
	}, nil
}

func (c *exportCmd) write(ctx context.Context, log *chatlog.Reader, out io.Writer, bar *progress.Bar) error {
	w, err := export.New(out, export.Options{Format: export.Format(c.Format), Public: c.Public, BOM: c.BOM})
	if err != nil {
		return err
	}
	var total, done int64
	if bar.Shown() {
		if total, err = c.total(ctx, log); err != nil {
			return err
		}
	}
	for row, err := range c.rows(ctx, log) {
		if err != nil {
			return err
		}
		if c.wanted(row) {
			if err := w.Write(row); err != nil {
				return err
			}
		}
		done++
		bar.Set(done, total)
	}
	return w.Close()
}

func (c *exportCmd) rooms(ctx context.Context, log *chatlog.Reader) iter.Seq2[string, error] {
	if c.Room != "" {
		return func(yield func(string, error) bool) { yield(c.Room, nil) }
	}
	return log.Rooms(ctx)
}

// rows gives the rows of the rooms, each room until it is past the last that
// can be wanted: times do not run backwards in it.
func (c *exportCmd) rows(ctx context.Context, log *chatlog.Reader) iter.Seq2[chat.Row, error] {
	return func(yield func(chat.Row, error) bool) {
		for room, err := range c.rooms(ctx, log) {
			if err != nil {
				yield(chat.Row{}, err)
				return
			}
			for row, err := range log.Walk(ctx, room, c.After, c.Before) {
				if err == nil && !c.Until.IsZero() && !row.At.Before(c.Until) {
					break
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}

func (c *exportCmd) wanted(row chat.Row) bool {
	return (c.Broadcast == "" || row.Broadcast == c.Broadcast) && !row.At.Before(c.Since)
}

// total is how many rows there are to go through, at most.
func (c *exportCmd) total(ctx context.Context, log *chatlog.Reader) (total int64, err error) {
	for room, err := range c.rooms(ctx, log) {
		if err != nil {
			return 0, err
		}
		heads, err := log.Heads(ctx, []string{room})
		if err != nil {
			return 0, err
		}
		total += max(0, heads[room]-c.After)
	}
	return total, nil
}
