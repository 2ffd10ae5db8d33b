package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// reconnectAfter is how long a browser is asked to wait before it follows again.
const reconnectAfter = 3 * time.Second

// follower is a viewer's stream of server-sent events (WHATWG HTML, section
// 9.2). The goroutine of its HTTP handler, which there must be, is the one that
// writes.
type follower struct {
	Session

	// Set once.
	seat   string // what it counts against
	w      http.ResponseWriter
	out    *http.ResponseController
	nudged chan struct{} // capacity 1, never closed

	deadlines sync.Mutex
	latest    time.Time // guarded by deadlines: no write may take longer; zero: while it lives
}

var _ transport = (*follower)(nil)

// Following is what the request of a follower said.
type Following struct {
	Room    string
	User    *chat.User // nil: whoever it is, they count by their address
	After   *int64     // the cursor; nil: from now on
	Log     string     // the log that the cursor belongs to; "" if the client does not say
	Running bool       // what was before the running broadcast is left out
	Lang    chat.Lang  // of the sentences
	Address string     // "" is exempt
}

// Follow answers a request with a stream of events and returns when that has
// ended. What is refused is so before the stream begins, and is the error, which
// the caller answers.
func (h *Hub) Follow(w http.ResponseWriter, r *http.Request, a Following) error {
	f := &follower{Session: h.newSession(a.Lang, h.opts.Metrics.followers),
		w: w, out: http.NewResponseController(w), nudged: make(chan struct{}, 1)}
	f.peer, f.room = f, a.Room
	var most int
	f.seat, most = h.seatOf(a)
	if err := h.sit(f, most); err != nil {
		return err
	}
	defer h.rise(f)
	h.gather(f) // before the state is read: what is logged from then on nudges it
	st, err := h.opts.State(r.Context(), a.Room)
	if err != nil {
		return err
	}
	cursor, err := h.from(r.Context(), a, st)
	if err != nil {
		return err
	}
	f.open(a, st, cursor)
	f.serve(r.Context())
	return nil
}

// seatOf names what a follower counts against, and how many may.
func (h *Hub) seatOf(a Following) (seat string, most int) {
	switch {
	case a.User != nil:
		return "user " + a.User.ID, h.opts.FollowersPerUser
	case a.Address != "":
		return "address " + a.Address, h.opts.FollowersPerAddress
	default:
		return "", h.opts.MaxFollowers
	}
}

// from is where a stream starts. Without a cursor that is now: whoever wants
// what was said before has read a page of it and names its last row, and ten
// thousand who come at once need not each be sent a thousand rows. Of a cursor
// beyond what this node knows the store has the last word, as another node may
// have logged more.
func (h *Hub) from(ctx context.Context, a Following, st chat.State) (int64, error) {
	switch {
	case a.Log != "" && a.Log != h.opts.Log.ID():
		return 0, chat.Refuse(chat.CursorForeign)
	case a.After == nil:
		return st.Seq, nil
	case *a.After <= st.Seq:
		return *a.After, nil
	}
	heads, err := h.opts.Log.Heads(ctx, []string{a.Room})
	if err != nil {
		return 0, &chat.Refusal{Code: chat.LogUnavailable, RetryAfter: time.Second, Cause: err}
	}
	if *a.After > heads[a.Room] {
		return 0, chat.Refuse(chat.CursorForeign)
	}
	return *a.After, nil
}

// open begins the stream.
func (f *follower) open(a Following, st chat.State, cursor int64) {
	header := f.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Connection", "close") // what a late deadline hits must not be another request
	f.w.WriteHeader(http.StatusOK)

	cursor, welcome := a.welcome(st, cursor)
	f.mu.Lock()
	f.beginLocked(st, cursor, welcome)
	if a.User != nil {
		f.expires = a.User.Expires
	}
	f.writing = true // by serve
	f.mu.Unlock()
	f.hub.wheel.add(&f.Session, f.hub.opts.Heartbeat)
}

// welcome is what a stream begins with: the cursor, as the id of no event. A
// browser that loses the connection before the first row then comes back to
// this place, not to a later one. Rows that the reader may not see are skipped.
func (a Following) welcome(st chat.State, cursor int64) (int64, []byte) {
	b := fmt.Appendf(nil, "retry: %d\nid: %d\n\n", reconnectAfter.Milliseconds(), cursor)
	if before := st.Running() - 1; a.Running && cursor < before {
		return before, append(b, skippedMessage(before)...)
	}
	return cursor, b
}

// serve writes until the stream ends.
func (f *follower) serve(ctx context.Context) {
	for f.steps(); !f.parted; f.steps() {
		select {
		case <-f.nudged:
		case <-ctx.Done():
			f.end(endGone)
		}
	}
}

// wake implements [transport].
func (f *follower) wake() {
	select {
	case f.nudged <- struct{}{}:
	default:
	}
}

// next implements [transport]. A viewer who is far behind is not sent thousands
// of rows: it is told which are left out, and can read those in pages.
func (f *follower) next(ctx context.Context, cursor, head int64) (frame, [][]byte, error) {
	if head-cursor > skipBehind {
		to := head - backlog
		return frame{after: cursor, to: to, skips: true}, [][]byte{skippedMessage(to)}, nil
	}
	fr, err := f.hub.frames.upTo(ctx, f.room, cursor, head)
	if err != nil || fr.to == cursor {
		return fr, nil, err
	}
	return fr, [][]byte{fr.event()}, nil
}

func skippedMessage(to int64) []byte {
	return eventMessage("skipped", to, wire.Encode(wire.Skipped{To: to}))
}

// eventMessage is a frame as an event, whose id is where the next one begins.
func eventMessage(name string, id int64, data []byte) []byte {
	return wire.ServerSent{ID: strconv.FormatInt(id, 10), Name: name, Data: data}.AppendTo(nil)
}

// write implements [transport].
func (f *follower) write(message []byte) error { return f.put(message, f.hub.opts.SlowAfter) }

// beat implements [transport]: a comment, which readers pass over.
func (f *follower) beat() error { return f.write([]byte(":\n\n")) }

// put writes and flushes a message. That it was taken is the peer's only sign of
// life.
func (f *follower) put(message []byte, within time.Duration) error {
	if err := f.allow(within); err != nil {
		return err
	}
	if _, err := f.w.Write(message); err != nil {
		return err
	}
	if err := f.out.Flush(); err != nil {
		return err
	}
	f.heard()
	return nil
}

// allow gives the next write its time, of what hurry has left.
func (f *follower) allow(within time.Duration) error {
	f.deadlines.Lock()
	defer f.deadlines.Unlock()
	by := time.Now().Add(within)
	if !f.latest.IsZero() && by.After(f.latest) {
		by = f.latest
	}
	return f.out.SetWriteDeadline(by)
}

// hurry bounds the time of all writes from now on, also of one under way.
func (f *follower) hurry(within time.Duration) {
	f.deadlines.Lock()
	defer f.deadlines.Unlock()
	if by := time.Now().Add(within); f.latest.IsZero() || by.Before(f.latest) {
		f.latest = by
		_ = f.out.SetWriteDeadline(by)
	}
}

// moved implements [transport]. A follower stays when a broadcast ends: what was
// said remains, and the next one begins in the same room.
func (f *follower) moved(frame) {}

// hangUp implements [transport].
func (f *follower) hangUp(why *ending) {
	if why.code == 0 {
		f.hurry(0)
		return
	}
	f.hurry(goodbyeTime)
}

// goodbye implements [transport]: the link's error frame as the last event.
func (f *follower) goodbye(why *ending) {
	message := wire.ServerSent{Name: "error", Data: native{}.goodbye(why, f.lang)}
	_ = f.put(message.AppendTo(nil), goodbyeTime)
}

// drop implements [transport].
func (f *follower) drop() { f.hurry(0) }

// left implements [transport].
func (f *follower) left() { f.hub.scatter(f) }

// sit counts a follower in, or says that there are too many. It does so under
// mu, so that a drain waits for every session that it finds.
func (h *Hub) sit(f *follower, most int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining:
		return endDraining.refusal
	case h.following.Load() >= int64(h.opts.MaxFollowers), h.seats[f.seat] >= most:
		return &chat.Refusal{Code: chat.FollowersFull, RetryAfter: fullFor + rand.N(fullFor)}
	}
	h.seats[f.seat]++
	h.following.Add(1)
	h.sessions[&f.Session] = struct{}{}
	h.running.Add(1)
	return nil
}

// fullFor is how long who finds no place should poll instead, and up to twice
// that, so that they do not all come back at once.
const fullFor = 10 * time.Second

// rise counts a follower out.
func (h *Hub) rise(f *follower) {
	h.scatter(f)
	h.mu.Lock()
	delete(h.sessions, &f.Session)
	if h.seats[f.seat]--; h.seats[f.seat] <= 0 {
		delete(h.seats, f.seat)
	}
	h.following.Add(-1)
	h.mu.Unlock()
	h.running.Done()
}
