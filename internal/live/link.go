package live

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/socket"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// link is a presenter's WebSocket.
type link struct {
	Session

	// Set once.
	conn     *socket.Conn
	address  string // counted against PerAddress
	speaks   dialect
	admitted bool // counted by the hub, which waits for it

	unstarted int // 1 until it is known whose link this is; owned by the reading goroutine

	// Set once by begin under mu, before the hub knows the link by its room.
	rank int64 // seq of its row
	// Guarded by mu.
	relayed int64 // everything up to here has been relayed, says the page; it may be ahead of cursor
}

var _ transport = (*link)(nil)

// Arrival is what the upgrade of a link said.
type Arrival struct {
	User    *chat.User // nil: the token is still to come in the start frame
	Refused error      // why this user gets no link, told after the upgrade
	After   *int64     // the cursor, nil for none
	Log     string     // that the cursor belongs to; "" when the client does not say
	Lang    chat.Lang  // of the sentences
	Address string     // that counts against PerAddress; "" is exempt

	// OnRefused, when not nil, hears why somebody got no link.
	OnRefused func(error)

	// Original, when not nil, makes it a link of the original platform's
	// dialect, with times in that zone.
	Original *time.Location
}

// Accept upgrades a request to a link and returns while the link lives on.
// Whoever is refused is upgraded all the same, because a browser learns nothing
// from a refused upgrade; only an address that has too many links is not, and
// is the error, which the caller answers.
func (h *Hub) Accept(w http.ResponseWriter, r *http.Request, a Arrival) error {
	unstarted := 0
	if a.User == nil {
		unstarted = 1
	}
	if err := h.reserve(a.Address, unstarted); err != nil {
		return err
	}
	conn, err := socket.Accept(w, r, wire.MaxClientFrame)
	if err != nil {
		h.unreserve(a.Address, 1, unstarted)
		return nil // it has answered
	}
	l := &link{Session: h.newSession(a.Lang, h.opts.Metrics.links), conn: conn, address: a.Address, unstarted: unstarted, speaks: native{}}
	l.peer = l
	if a.Original != nil {
		l.speaks = original{a.Original}
	}
	conn.OnPong(l.heard)
	if err := h.admit(l, a); err != nil {
		go l.turnAway(err) // not waited for: a drain would never end
	}
	return nil
}

func (l *link) turnAway(why error) {
	defer l.hub.unreserve(l.address, 1, l.unstarted)
	l.end(endFor(why))
	l.listen()
	l.conn.Drop()
}

// run opens the link and leaves the rest of its life to another goroutine: a
// stack that has opened a link is twice what reading needs, for as long as it
// lasts (8 KiB in the place of 4).
func (l *link) run(a Arrival) {
	if why := l.open(a); why != nil {
		if a.OnRefused != nil && why.refusal != nil {
			a.OnRefused(why.refusal)
		}
		l.end(why)
	}
	l.hub.running.Go(l.read)
}

// read is the reading goroutine.
func (l *link) read() {
	defer l.hub.forget(l)
	defer l.conn.Drop()
	l.listen()
	l.end(endGone)
}

// open authenticates the link, takes the room in the log, and starts from the
// right row.
func (l *link) open(a Arrival) *ending {
	if a.Refused != nil {
		return endFor(a.Refused)
	}
	user, start := a.User, wire.Start{After: a.After, Log: a.Log}
	if user == nil {
		who, frame, end := l.awaitStart()
		if end != nil {
			return end
		}
		user, start = &who, frame
		l.hub.unreserve(l.address, 0, l.unstarted)
		l.unstarted = 0
	}
	if err := l.hub.attempt(user.ID); err != nil {
		return endFor(err)
	}
	if l.hasEnded() { // it must not take the room from a link that lives
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	defer cancel()
	st, err := l.hub.opts.Take(ctx, *user, l.id)
	if err != nil {
		// Its rows may be in the log all the same: a broadcast without a link.
		l.hub.gone(user.ID)
		return endFor(err)
	}
	l.begin(st, start, user.Expires)
	l.hub.enter(l)
	l.hub.wheel.add(&l.Session, l.hub.opts.Heartbeat)
	l.advance(st.Seq)
	return nil
}

// awaitStart reads the first frame. Its time is not a deadline of the read: a
// read that has failed cannot find the peer's answer to a goodbye.
func (l *link) awaitStart() (chat.User, wire.Start, *ending) {
	late := time.AfterFunc(l.hub.opts.StartWithin, func() { l.end(endProtocol("no start frame in time")) })
	data, err := l.conn.Read()
	late.Stop()
	if err != nil {
		return chat.User{}, wire.Start{}, readEnding(err)
	}
	start, why := l.speaks.start(data)
	if why != nil {
		return chat.User{}, wire.Start{}, why
	}
	user, err := l.hub.opts.Verify(start.Token)
	if err != nil {
		return chat.User{}, wire.Start{}, endFor(err)
	}
	return user, start, nil
}

// begin sets the link off from its first row.
func (l *link) begin(st chat.State, start wire.Start, expires time.Time) {
	cursor, welcome := l.speaks.begin(l.hub, st, l, start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room, l.rank = st.Room, st.Link.Seq
	l.beginLocked(st, cursor, welcome)
	l.renewLocked(expires)
}

// renewLocked notes when the link's token ends.
func (l *link) renewLocked(expires time.Time) {
	if !l.hub.opts.Outlive {
		l.expires = expires
	}
}

// listen reads until the connection ends. What comes after the end of the
// session is read only to find the peer's close.
func (l *link) listen() {
	for {
		data, err := l.conn.Read()
		if err != nil {
			why := readEnding(err)
			l.end(why)
			if why == endGone {
				return
			}
			continue
		}
		if l.hasEnded() {
			continue
		}
		l.heard()
		if end := l.speaks.hear(l, data); end != nil {
			l.end(end)
		}
	}
}

func readEnding(err error) *ending {
	switch {
	case errors.Is(err, socket.ErrNotText):
		return endProtocol("binary message")
	case errors.Is(err, socket.ErrTooLarge):
		return endProtocol("message too large")
	default:
		return endGone
	}
}

// wake implements [transport]: a writing goroutine exists only while there is
// something to send.
func (l *link) wake() {
	if l.admitted {
		l.hub.running.Go(l.steps)
	} else {
		go l.steps()
	}
}

// next implements [transport].
func (l *link) next(ctx context.Context, cursor, head int64) (frame, [][]byte, error) {
	if head-cursor > skipBehind && l.speaks == dialect(native{}) {
		return l.skip(ctx, cursor, head-backlog)
	}
	return l.speaks.rows(ctx, l.hub, l.room, cursor, l.company(head))
}

// company gives rows a moment to share a frame, where this node builds so many
// that signing them is a burden, and says how far the room reaches then. All
// links that wait do so for the same moment: what signs is then at hand.
func (l *link) company(head int64) int64 {
	if l.hub.framing.Allow() {
		return head
	}
	now := time.Now()
	time.Sleep(now.Truncate(mostCompany).Add(mostCompany).Sub(now))
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// skip passes over rows that no page needs to relay any more. What they say of
// the link itself holds all the same.
func (l *link) skip(ctx context.Context, cursor, to int64) (frame, [][]byte, error) {
	marks, _, err := l.hub.opts.Log.Marks(ctx, l.room, cursor)
	if err != nil {
		return frame{}, nil, err
	}
	return frame{after: cursor, to: to, skips: true, marks: marks}, [][]byte{wire.Encode(wire.Skipped{To: to})}, nil
}

// write implements [transport].
func (l *link) write(message []byte) error { return l.conn.Write(message, l.hub.opts.SlowAfter) }

// beat implements [transport].
func (l *link) beat() error {
	if message := l.speaks.beat(); message != nil {
		return l.write(message)
	}
	return l.conn.Ping(l.hub.opts.SlowAfter)
}

// moved implements [transport]: it acts on rows that are about the link itself.
// They come in the room's order, on every node, which is how two nodes agree.
func (l *link) moved(f frame) {
	if !f.skips {
		l.speaks.moved(l.hub, l.room, f.to)
	}
	for _, row := range f.marks {
		switch row.Kind {
		case chat.KindLink:
			if row.Seq > l.rank {
				l.end(endReplaced)
			}
		case chat.KindBroadcast:
			l.mu.Lock()
			l.notLive = time.Time{}
			if row.Details.State == chat.BroadcastEnded {
				l.notLive = time.Now()
			}
			l.mu.Unlock()
		}
	}
}

// hangUp implements [transport].
func (l *link) hangUp(why *ending) {
	if why.code == 0 {
		l.conn.Drop()
		return
	}
	l.conn.Hurry(goodbyeTime)
	l.conn.ReadBy(time.Now().Add(2 * goodbyeTime))
}

// goodbye implements [transport]: it tells the peer why and waits, in the
// reading goroutine, for its answer. A peer that never reads sees only the end.
func (l *link) goodbye(why *ending) {
	if message := l.speaks.goodbye(why, l.lang); message != nil && l.conn.Write(message, goodbyeTime) != nil {
		l.conn.Drop()
		return
	}
	if l.conn.Close(uint16(why.code), why.code.String(), goodbyeTime) != nil {
		l.conn.Drop()
	}
}

// drop implements [transport].
func (l *link) drop() { l.conn.Drop() }

// left implements [transport].
func (l *link) left() {
	l.mu.Lock()
	room, cursor, started := l.room, l.cursor, l.started
	l.mu.Unlock()
	if started {
		l.speaks.moved(l.hub, room, cursor)
	}
	l.hub.leave(l, room)
}
