// Package directory knows which presenters are live.
//
// With no room server beside us, the truth is the room's log: a broadcast is
// open from its started row to its ended row. The registry writes the ended
// ones: it watches rooms whose presenter is away and closes a broadcast that
// has had no link for too long.
package directory

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Registry ends broadcasts whose presenter has gone. Methods may be called
// concurrently.
type Registry struct {
	desk     *chat.Desk
	endAfter time.Duration
	logger   *slog.Logger

	mu    sync.Mutex
	watch map[string]int // guarded by mu: rooms to look at until they are linked or over, and how often they were named
}

// lookEvery is how often the watched rooms are looked at, and so how late a
// broadcast may end.
const lookEvery = time.Second

// NewRegistry makes a registry that ends a broadcast endAfter its link has
// gone; 0 means 90 s.
func NewRegistry(desk *chat.Desk, endAfter time.Duration, logger *slog.Logger) *Registry {
	if endAfter == 0 {
		endAfter = 90 * time.Second
	}
	return &Registry{desk: desk, endAfter: endAfter, logger: logger, watch: map[string]int{}}
}

// Watch looks after a room from now on: its link has gone, or its broadcast was
// opened by somebody who is not its presenter.
func (g *Registry) Watch(room string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch[room]++
}

// Resume watches every room that the log says is live. Called at the start: the
// presenters of those rooms were cut off by the stop.
func (g *Registry) Resume(ctx context.Context, log chat.Log) (rooms int, err error) {
	live, err := log.Live(ctx)
	for _, room := range live {
		g.Watch(room)
	}
	return len(live), err
}

// Run looks at the watched rooms until ctx ends.
func (g *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for room, named := range g.watched() {
				g.look(ctx, room, named)
			}
		}
	}
}

func (g *Registry) watched() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.watch)
}

// look stops watching a room that is linked or over, and ends a broadcast that
// has been left for too long. When the log fails it is looked at again.
func (g *Registry) look(ctx context.Context, room string, named int) {
	st, err := g.desk.State(ctx, room)
	if err != nil {
		return
	}
	absent, since := g.desk.Absent(st)
	switch {
	case !st.Live() || !absent:
		g.forget(room, named)
	case since >= g.endAfter:
		g.end(ctx, st)
	}
}

// end asks once more in the room's own order, as a link may be coming in.
func (g *Registry) end(ctx context.Context, st chat.State) {
	left := func(now chat.State) bool {
		absent, since := g.desk.Absent(now)
		return absent && since >= g.endAfter
	}
	ended, err := g.desk.EndBroadcast(ctx, st.Room, chat.User{}, "presenter left", left)
	switch {
	case err != nil:
		g.logger.Warn("cannot end a broadcast that was left", "room", st.Room, "error", err)
	case ended:
		g.logger.Info("broadcast ended", "room", st.Room, "broadcast", st.Broadcast.ID, "reason", "presenter left")
	}
}

// forget stops watching, unless the room was named again since it was looked at.
func (g *Registry) forget(room string, named int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.watch[room] == named {
		delete(g.watch, room)
	}
}
