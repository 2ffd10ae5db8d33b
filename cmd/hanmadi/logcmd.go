package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hanmadi/hanmadi/internal/chatlog"
)

type logCmd struct {
	Restore restoreCmd `cmd:"" help:"Put a backup in the place of the log, under a new log id."`
}

type restoreCmd struct {
	From string    `required:"" placeholder:"FILE" help:"The backup: a copy of the log's file."`
	Log  LogConfig `embed:"" prefix:"log."`
}

// Help is shown under --help.
func (restoreCmd) Help() string {
	return "The log that was there is kept beside it. Clients whose cursors belong to the lost rows see the new log id and start over. No server may run on the log."
}

// Run restores.
func (c *restoreCmd) Run(s streams, signals <-chan os.Signal) error {
	path, err := chatlog.Path(c.Log.URL)
	if err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
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
