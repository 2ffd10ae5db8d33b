package main

import (
	"context"
	"errors"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog"
)

// openLog puts the log together: the file, the index that follows it, and the
// tail in front. The index can be made anew and is not what people come for: a
// server whose index cannot be opened serves without it.
func (a *app) openLog(ctx context.Context, path string) (err error) {
	metrics := chatlog.NewMetrics(a.metrics)
	if a.log, err = chatlog.OpenSQLite(ctx, path, metrics); err != nil {
		return err
	}
	a.log.KeepFree(a.Log.MinFree)
	var log chat.Log = a.log
	if a.Log.Search {
		opts := chatlog.IndexOptions{Metrics: chatlog.NewIndexMetrics(a.metrics), Pause: a.log.Short,
			OnError: func(err error) { a.logger.Warn("the search index does not go on for now", "error", err) }}
		if a.index, err = chatlog.OpenIndex(ctx, a.log, path, opts); err != nil {
			a.logger.Error("nothing can be searched: the index cannot be opened", "error", err)
			a.index = nil
		} else {
			log = a.index
		}
	}
	a.tail = chatlog.NewTail(log, int(a.Log.Tail), metrics)
	return nil
}

// searcher is the index as the web takes it; an index that is nil would be a
// searcher that is not.
func (a *app) searcher() chat.Searcher {
	if a.index == nil {
		return nil
	}
	return a.index
}

func (a *app) closeLog() error {
	if a.index == nil {
		return a.log.Close()
	}
	return errors.Join(a.index.Close(), a.log.Close())
}
