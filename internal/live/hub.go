// Package live is the sessions of this node: links (WebSockets of presenters)
// and followers (streams of viewers), which each read one room's log from a
// cursor of their own.
//
// A session has no queue. It is nudged when its room has grown, reads what
// follows its cursor and writes it; so a slow peer lags and loses nothing, and a
// reconnect runs the same code as a connect. A link costs one reading goroutine;
// one that writes exists only while there is something to send. A follower is
// the goroutine of its HTTP handler. Heartbeats come from one wheel for all.
package live

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
)

// Options are set once. NewHub fills the durations and counts that are zero.
type Options struct {
	Log     chat.Log
	Key     seal.Key
	Metrics *Metrics
	Logger  *slog.Logger
	NewID   func() string                         // session ids
	Verify  func(token string) (chat.User, error) // errors are *chat.Refusal
	OnGone  func(room string)                     // a link has gone, or did not come to be; whoever hears it looks who is there; may be nil
	Take    func(ctx context.Context, presenter chat.User, session string) (chat.State, error)
	State   func(ctx context.Context, room string) (chat.State, error) // for followers
	Outlive bool                                                       // links go on when their token has expired

	Heartbeat   time.Duration // between two of the server's; 25 s
	StartWithin time.Duration // for the first frame of a link without a token; 10 s
	SlowAfter   time.Duration // without progress of a write; 60 s
	TokenGrace  time.Duration // after a token has expired; 60 s
	NotLiveFor  time.Duration // until a link of an ended broadcast is closed; 60 s
	Recheck     time.Duration // between two looks at the store for what nudges missed; 10 s
	PerAddress  int           // links from one address; 1,000
	Unstarted   int           // of those, ones that have not said yet who they are; 100
	MaxLinks    int           // on this node, those that have not started yet included; 20,000
	Attempts    int           // links a user may open a minute; 30

	MaxFollowers        int           // on this node; 10,000
	FollowersPerUser    int           // 20
	FollowersPerAddress int           // of those without a token; 1,000
	Frames              rate.Limit    // for links, a second, from which on rows wait for company; 750 a processor
	PerDelivery         time.Duration // set aside for each follower of this node until a room's are told again; 40 µs
}

// Hub holds the sessions of this node. It implements [chat.Presence]. Methods may
// be called concurrently.
type Hub struct {
	opts    Options
	started time.Time
	wheel   wheel
	frames  frames
	stop    chan struct{} // closed by Drain
	running sync.WaitGroup

	following atomic.Int64  // followers
	framing   *rate.Limiter // of the frames for links, see link.company

	mu        sync.Mutex
	rooms     map[string]*link      // guarded by mu: the link of each room
	audiences map[string]*audience  // guarded by mu: the followers of each room that has any
	seats     map[string]int        // guarded by mu: followers of each user and address
	left      map[string]time.Time  // guarded by mu: when a room's last link went
	attempts  map[string]time.Time  // guarded by mu: the theoretical arrival time of each user's next attempt
	addresses map[string]crowd      // guarded by mu: links of each address
	places    map[string]place      // guarded by mu: of the original dialect
	sessions  map[*Session]struct{} // guarded by mu
	draining  bool                  // guarded by mu
}

var _ chat.Presence = (*Hub)(nil)

// forgetLeft is how long a room that was left is remembered. It outlives every
// window that asks for it.
const forgetLeft = time.Hour

// Signing and sending a frame costs the same whatever stands in it: 35 µs for
// the signature alone on the machine that this was measured on. So many may be
// built at once without a thought; beyond Options.Frames rows wait for company,
// but not longer than people take for at once.
const (
	framesAtOnce = 50
	mostCompany  = 20 * time.Millisecond
)

// NewHub starts a hub; Drain stops it.
func NewHub(o Options) *Hub {
	setDefault(&o.Heartbeat, 25*time.Second)
	setDefault(&o.StartWithin, 10*time.Second)
	setDefault(&o.SlowAfter, 60*time.Second)
	setDefault(&o.TokenGrace, 60*time.Second)
	setDefault(&o.NotLiveFor, 60*time.Second)
	setDefault(&o.Recheck, 10*time.Second)
	setDefault(&o.PerAddress, 1000)
	setDefault(&o.Unstarted, 100)
	setDefault(&o.MaxLinks, 20_000)
	setDefault(&o.Attempts, 30)
	setDefault(&o.MaxFollowers, 10_000)
	setDefault(&o.FollowersPerUser, 20)
	setDefault(&o.FollowersPerAddress, 1000)
	setDefault(&o.PerDelivery, 40*time.Microsecond)
	setDefault(&o.Frames, rate.Limit(750*runtime.GOMAXPROCS(0)))
	h := &Hub{opts: o, framing: rate.NewLimiter(o.Frames, framesAtOnce), started: time.Now(), stop: make(chan struct{}),
		frames: frames{log: o.Log, key: o.Key, recent: map[string][]*framing{}},
		rooms:  map[string]*link{}, audiences: map[string]*audience{}, seats: map[string]int{}, left: map[string]time.Time{}, attempts: map[string]time.Time{},
		sessions: map[*Session]struct{}{}, addresses: map[string]crowd{}, places: map[string]place{}}
	h.opts.Metrics.observe(h)
	h.running.Go(h.turn)
	h.running.Go(h.recheck)
	return h
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Linked implements [chat.Presence]. After a start every room has been left at
// the start: its presenter has had no chance to come back before.
func (h *Hub) Linked(room string) (bool, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rooms[room] != nil {
		return true, time.Time{}
	}
	if at, ok := h.left[room]; ok {
		return false, at
	}
	return false, h.started
}

// Nudge implements [chat.Presence].
func (h *Hub) Nudge(room string, head int64) {
	h.mu.Lock()
	l, a := h.rooms[room], h.audiences[room]
	h.mu.Unlock()
	if l != nil {
		l.advance(head)
	}
	if a != nil {
		a.nudge(head)
	}
}

// crowd is the connections of one address.
type crowd struct{ links, unstarted int }

// reserve counts a connection of an address in, or says that it has too many.
func (h *Hub) reserve(address string, unstarted int) error {
	if address == "" {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.addresses[address]
	if c.links >= h.opts.PerAddress || unstarted > 0 && c.unstarted >= h.opts.Unstarted {
		return &chat.Refusal{Code: chat.RateRequests, RetryAfter: 10 * time.Second}
	}
	h.addresses[address] = crowd{c.links + 1, c.unstarted + unstarted}
	return nil
}

// unreserve counts links, and ones that have not started, out.
func (h *Hub) unreserve(address string, links, unstarted int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.addresses[address]
	if c = (crowd{c.links - links, c.unstarted - unstarted}); c.links <= 0 {
		delete(h.addresses, address)
	} else {
		h.addresses[address] = c
	}
}

// admit counts a new connection in and runs it, or says why not. It does both
// under mu, so that a drain waits for every session that it finds.
func (h *Hub) admit(l *link, a Arrival) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining:
		return endDraining.refusal
	case len(h.sessions)-int(h.following.Load()) >= h.opts.MaxLinks:
		return &chat.Refusal{Code: chat.Overloaded, RetryAfter: 10 * time.Second}
	}
	h.sessions[&l.Session] = struct{}{}
	l.admitted = true
	h.running.Go(func() { l.run(a) })
	return nil
}

// attempt counts a user's attempt to open a link: a bucket of Attempts that
// refills evenly over a minute (the generic cell rate algorithm, ITU-T I.371).
func (h *Hub) attempt(user string) error {
	now, each := time.Now(), time.Minute/time.Duration(h.opts.Attempts)
	h.mu.Lock()
	defer h.mu.Unlock()
	tat := h.attempts[user]
	if tat.Before(now) {
		tat = now
	}
	if wait := tat.Add(each).Sub(now.Add(time.Minute)); wait > 0 {
		return &chat.Refusal{Code: chat.RateRequests, RetryAfter: wait}
	}
	h.attempts[user] = tat.Add(each)
	return nil
}

// enter makes the link its room's, if it lives and no newer one is there, and
// replaces the one before it.
func (h *Hub) enter(l *link) {
	h.mu.Lock()
	older := h.rooms[l.room]
	switch {
	case older != nil && older.rank > l.rank:
		older = l
	case l.hasEnded():
		older = nil
	default:
		h.rooms[l.room] = l
		delete(h.left, l.room)
	}
	h.mu.Unlock()
	if older != nil {
		older.end(endReplaced)
	}
}

// leave takes the link out of its room, unless another took that over.
func (h *Hub) leave(l *link, room string) {
	h.mu.Lock()
	held := h.rooms[room] == l
	if held {
		delete(h.rooms, room)
		h.left[room] = time.Now()
	}
	h.mu.Unlock()
	if held {
		h.gone(room)
	}
}

func (h *Hub) gone(room string) {
	if h.opts.OnGone != nil {
		h.opts.OnGone(room)
	}
}

// forget counts a connection out.
func (h *Hub) forget(l *link) {
	h.mu.Lock()
	delete(h.sessions, &l.Session)
	h.mu.Unlock()
	h.unreserve(l.address, 1, l.unstarted)
}

// recheck asks the store for the heads of all rooms that have a session, in one
// query, so that a nudge that was lost is made up for; and forgets what is old.
func (h *Hub) recheck() {
	tick := time.NewTicker(h.opts.Recheck)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
		}
		rooms := h.sweep()
		if len(rooms) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), h.opts.Recheck)
		heads, err := h.opts.Log.Heads(ctx, rooms)
		cancel()
		if err != nil {
			h.opts.Logger.Warn("cannot ask the log for its heads", "error", err)
		}
		for room, head := range heads {
			h.Nudge(room, head)
		}
	}
}

// sweep drops what has aged out and lists the rooms that have a session.
func (h *Hub) sweep() []string {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for room, at := range h.left {
		if now.Sub(at) > forgetLeft {
			delete(h.left, room)
		}
	}
	h.agePlacesLocked(now)
	for user, tat := range h.attempts {
		if tat.Before(now) {
			delete(h.attempts, user)
		}
	}
	rooms := slices.Collect(maps.Keys(h.rooms))
	for room := range h.audiences {
		if h.rooms[room] == nil {
			rooms = append(rooms, room)
		}
	}
	h.frames.keep(now.Add(-h.opts.Recheck))
	return rooms
}

// Drain refuses newcomers, says goodbye to every session, spread evenly over a
// time so that they do not all reconnect at once, and waits until the last has
// gone. When ctx ends first, the rest are dropped.
func (h *Hub) Drain(ctx context.Context, over time.Duration) {
	h.mu.Lock()
	already := h.draining
	h.draining = true
	leaving := make([]*Session, 0, len(h.sessions))
	for s := range h.sessions {
		leaving = append(leaving, s)
	}
	h.mu.Unlock()
	if already {
		return
	}
	rand.Shuffle(len(leaving), func(i, j int) { leaving[i], leaving[j] = leaving[j], leaving[i] })
	h.goodbyes(ctx, leaving, over)
	close(h.stop)

	gone := make(chan struct{})
	go func() { h.running.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-ctx.Done():
		for _, s := range leaving {
			s.peer.drop()
		}
		<-gone
	}
}

func (h *Hub) goodbyes(ctx context.Context, leaving []*Session, over time.Duration) {
	if len(leaving) == 0 {
		return
	}
	tick := time.NewTicker(max(over/time.Duration(len(leaving)), time.Microsecond))
	defer tick.Stop()
	for i, s := range leaving {
		s.end(endDraining)
		if i == len(leaving)-1 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
