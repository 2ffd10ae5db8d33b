package directory

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// watchlist is the rooms that need looking after, each until it needs no more.
// Methods may be called concurrently.
type watchlist struct {
	mu    sync.Mutex
	rooms map[string]int // guarded by mu: how often each was named
}

// Watch looks after a room from now on.
func (w *watchlist) Watch(room string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rooms == nil {
		w.rooms = map[string]int{}
	}
	w.rooms[room]++
}

// Resume watches every room that the log says is live. Called at the start: the
// presenters of those rooms were cut off by the stop.
func (w *watchlist) Resume(ctx context.Context, log chat.Log) (rooms int, err error) {
	live, err := log.Live(ctx)
	for _, room := range live {
		w.Watch(room)
	}
	return len(live), err
}

// each calls look for every room now and then until ctx ends, for several at
// once. A room for which look returns false is dropped, unless it was named
// again meanwhile.
func (w *watchlist) each(ctx context.Context, every time.Duration, look func(room string) (keep bool)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.mu.Lock()
		rooms := maps.Clone(w.rooms)
		w.mu.Unlock()
		w.lookAt(ctx, rooms, look)
	}
}

// looksAtOnce bounds how many rooms are looked at at the same time. A look may
// ask the room server, and thousands of rooms one after another would not fit
// into the time until the next look.
const looksAtOnce = 16

func (w *watchlist) lookAt(ctx context.Context, rooms map[string]int, look func(room string) (keep bool)) {
	var looking sync.WaitGroup
	slots := make(chan struct{}, looksAtOnce)
	for room, named := range rooms {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break // a stop does not wait for thousands of rooms
		}
		looking.Go(func() {
			defer func() { <-slots }()
			if !look(room) {
				w.forget(room, named)
			}
		})
	}
	looking.Wait()
}

func (w *watchlist) forget(room string, named int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rooms[room] == named {
		delete(w.rooms, room)
	}
}

// Follower brings rooms in line with a room server's word also while nobody
// speaks: it opens broadcasts of linked presenters, ends those that are no more
// live, and has their links closed.
type Follower struct {
	watchlist
	desk     *chat.Desk
	server   chat.Directory
	presence chat.Presence
	close    func(room string) // closes a link whose presenter is not live
	logger   *slog.Logger

	sinceMu sync.Mutex
	since   map[string]time.Time // guarded by sinceMu: since when the server says "not live"
}

const (
	followEvery    = 5 * time.Second
	notLiveEnds    = 30 * time.Second // of "not live" end a broadcast
	notLiveUnlinks = 60 * time.Second // of "not live" close a link
)

// NewFollower makes a follower of a room server.
func NewFollower(desk *chat.Desk, server chat.Directory, presence chat.Presence, close func(room string), logger *slog.Logger) *Follower {
	return &Follower{desk: desk, server: server, presence: presence, close: close, logger: logger, since: map[string]time.Time{}}
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	f.each(ctx, followEvery, func(room string) bool {
		keep := f.look(ctx, room)
		if !keep {
			f.isLive(room)
		}
		return keep
	})
}

// isLive ends the count of how long a room has not been live.
func (f *Follower) isLive(room string) {
	f.sinceMu.Lock()
	defer f.sinceMu.Unlock()
	delete(f.since, room)
}

// notLiveFor is how long the server has said "not live", without a break.
func (f *Follower) notLiveFor(room string) time.Duration {
	f.sinceMu.Lock()
	defer f.sinceMu.Unlock()
	if _, known := f.since[room]; !known {
		f.since[room] = time.Now()
	}
	return time.Since(f.since[room])
}

func (f *Follower) look(ctx context.Context, room string) (keep bool) {
	st, err := f.desk.State(ctx, room)
	if err != nil {
		return true
	}
	linked, _ := f.presence.Linked(room)
	if !linked && !st.Live() {
		return false
	}
	word, err := f.server.Live(ctx, room)
	switch {
	case err != nil:
		f.isLive(room) // as far as we know: only an unbroken "no" counts
	case word.Live:
		f.isLive(room)
		if err := f.desk.GoLive(ctx, room, word); err != nil {
			f.logger.Warn("cannot open a broadcast", "room", room, "error", err)
		}
	default:
		f.notLive(ctx, st, linked)
	}
	return true
}

// notLive acts on a "no" that has held for long enough.
func (f *Follower) notLive(ctx context.Context, st chat.State, linked bool) {
	held := f.notLiveFor(st.Room)
	if st.Live() && held >= notLiveEnds {
		same := func(now chat.State) bool { return now.Broadcast.Seq == st.Broadcast.Seq }
		if _, err := f.desk.EndBroadcast(ctx, st.Room, chat.User{}, "room server", same); err != nil {
			f.logger.Warn("cannot end a broadcast that is over", "room", st.Room, "error", err)
		}
	}
	if linked && held >= notLiveUnlinks {
		f.close(st.Room)
	}
}
