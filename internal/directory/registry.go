// Package directory knows which presenters are live.
//
// With no room server beside us, the truth is the room's log: a broadcast is
// open from its started row to its ended row, and [Registry] ends those whose
// presenter has been away for too long. With one, its word decides: [Client]
// asks it, and [Follower] brings the rooms in line with what it says.
package directory

import (
	"context"
	"log/slog"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Registry ends broadcasts whose presenter has gone. Methods may be called
// concurrently.
type Registry struct {
	watchlist
	desk     *chat.Desk
	endAfter time.Duration
	logger   *slog.Logger
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
	return &Registry{desk: desk, endAfter: endAfter, logger: logger}
}

// Run looks at the watched rooms until ctx ends.
func (g *Registry) Run(ctx context.Context) {
	g.each(ctx, lookEvery, func(room string) bool { return g.look(ctx, room) })
}

// look stops watching a room that is linked or over, and ends a broadcast that
// has been left for too long. When the log fails it is looked at again.
func (g *Registry) look(ctx context.Context, room string) (keep bool) {
	st, err := g.desk.State(ctx, room)
	if err != nil {
		return true
	}
	absent, since := g.desk.Absent(st)
	if !st.Live() || !absent {
		return false
	}
	if since >= g.endAfter {
		g.end(ctx, st)
	}
	return true
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
