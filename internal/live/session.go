package live

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/socket"
	"github.com/hanmadi/hanmadi/internal/wire"
)

const (
	backlog     = 1000            // rows that a link without a cursor goes back at most
	skipBehind  = 2000            // rows behind from which a link is skipped ahead to backlog
	goodbyeTime = 5 * time.Second // for the peer to take and answer a close
	replyTime   = 10 * time.Second
)

// Session is one link: a cursor on its room's log, and a socket.
type Session struct {
	// Set once, before anybody else sees the session.
	hub      *Hub
	conn     *socket.Conn
	lang     chat.Lang
	id       string
	address  string // counted against PerAddress
	speaks   dialect
	admitted bool // counted by the hub, which waits for it

	mu sync.Mutex
	// Set once by begin under mu, before the writer starts and before the hub
	// knows the session by its room: whoever is after that reads them freely.
	room string
	rank int64 // seq of its link row
	// Guarded by mu.
	writing    bool      // a writing goroutine exists
	started    bool      // the welcome may be sent
	welcome    []byte    // to be sent first
	cursor     int64     // everything up to here has been written to the socket
	head       int64     // the room's end, as far as known
	behind     time.Time // since when cursor < head; zero when level
	resting    bool      // the log did not give what follows cursor; the next nudge asks it again
	relayed    int64     // everything up to here has been relayed, says the page; it may be ahead of cursor
	beat       bool      // a heartbeat is to be sent
	pong       bool      // an answer to "ping" is to be sent
	unanswered int       // heartbeats sent since the peer was last heard
	nextBeat   time.Time
	expires    time.Time // of the token; zero: never
	notLive    time.Time // since when the broadcast is over; zero while it runs
	ended      *ending
}

// Arrival is what the upgrade of a link said.
type Arrival struct {
	User    *chat.User // nil: the token is still to come in the start frame
	Refused error      // why this user gets no link, told after the upgrade
	After   *int64     // the cursor, nil for none
	Lang    chat.Lang  // of the sentences
	Address string     // that counts against PerAddress; "" is exempt

	// Original, when not nil, makes it a link of the original platform's
	// dialect, with times in that zone.
	Original *time.Location
}

// Accept upgrades a request to a link and returns while the link lives on.
// Whoever is refused is upgraded all the same, because a browser learns nothing
// from a refused upgrade; only an address that has too many links is not, and
// is the error, which the caller answers.
func (h *Hub) Accept(w http.ResponseWriter, r *http.Request, a Arrival) error {
	if err := h.reserve(a.Address); err != nil {
		return err
	}
	conn, err := socket.Accept(w, r, wire.MaxClientFrame)
	if err != nil {
		h.unreserve(a.Address)
		return nil // it has answered
	}
	s := &Session{hub: h, conn: conn, lang: a.Lang, id: h.opts.NewID(), address: a.Address, speaks: native{}}
	if a.Original != nil {
		s.speaks = original{a.Original}
	}
	conn.OnPong(s.heard)
	if err := h.admit(s, a); err != nil {
		go s.turnAway(err) // not waited for: a drain would never end
	}
	return nil
}

func (s *Session) turnAway(why error) {
	defer s.hub.unreserve(s.address)
	s.end(endFor(why))
	s.listen()
	s.conn.Drop()
}

// run is the reading goroutine: the whole life of a link.
func (s *Session) run(a Arrival) {
	defer s.hub.forget(s)
	defer s.conn.Drop()
	if why := s.open(a); why != nil {
		s.end(why)
	}
	s.listen()
	s.end(endGone)
}

// open authenticates the link, takes the room in the log, and starts from the
// right row.
func (s *Session) open(a Arrival) *ending {
	if a.Refused != nil {
		return endFor(a.Refused)
	}
	user, start := a.User, wire.Start{After: a.After}
	if user == nil {
		who, frame, end := s.awaitStart()
		if end != nil {
			return end
		}
		user, start = &who, frame
	}
	if err := s.hub.attempt(user.ID); err != nil {
		return endFor(err)
	}
	if s.hasEnded() { // it must not take the room from a link that lives
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	defer cancel()
	st, err := s.hub.opts.Take(ctx, *user, s.id)
	if err != nil {
		// Its rows may be in the log all the same: a broadcast without a link.
		s.hub.gone(user.ID)
		return endFor(err)
	}
	s.begin(st, start, user.Expires)
	s.hub.enter(s)
	s.hub.wheel.add(s, s.hub.opts.Heartbeat)
	s.advance(st.Seq)
	return nil
}

// awaitStart reads the first frame. Its time is not a deadline of the read: a
// read that has failed cannot find the peer's answer to a goodbye.
func (s *Session) awaitStart() (chat.User, wire.Start, *ending) {
	late := time.AfterFunc(s.hub.opts.StartWithin, func() { s.end(endProtocol("no start frame in time")) })
	data, err := s.conn.Read()
	late.Stop()
	if err != nil {
		return chat.User{}, wire.Start{}, readEnding(err)
	}
	start, why := s.speaks.start(data)
	if why != nil {
		return chat.User{}, wire.Start{}, why
	}
	user, err := s.hub.opts.Verify(start.Token)
	if err != nil {
		return chat.User{}, wire.Start{}, endFor(err)
	}
	return user, start, nil
}

// begin sets the link off from its first row.
func (s *Session) begin(st chat.State, start wire.Start, expires time.Time) {
	cursor, welcome := s.speaks.begin(s.hub, st, s, start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room, s.rank = st.Room, st.Link.Seq
	s.cursor, s.head, s.expires = cursor, st.Seq, expires
	s.nextBeat = time.Now().Add(s.hub.opts.Heartbeat)
	s.started, s.welcome = true, welcome
}

// listen reads until the connection ends. What comes after the end of the
// session is read only to find the peer's close.
func (s *Session) listen() {
	for {
		data, err := s.conn.Read()
		if err != nil {
			why := readEnding(err)
			s.end(why)
			if why == endGone {
				return
			}
			continue
		}
		if s.hasEnded() {
			continue
		}
		s.heard()
		if end := s.speaks.hear(s, data); end != nil {
			s.end(end)
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

// heard notes a sign of life.
func (s *Session) heard() {
	s.mu.Lock()
	s.unanswered = 0
	s.mu.Unlock()
}

// advance tells the session how far its room has grown. It never blocks.
func (s *Session) advance(head int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head, s.resting = max(s.head, head), false
	if s.behind.IsZero() && s.cursor < s.head {
		s.behind = time.Now()
	}
	s.writeLocked()
}

func (s *Session) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended != nil
}

// end ends the session for a reason; the first one wins. It never blocks: the
// goodbye is the writer's last work.
func (s *Session) end(why *ending) {
	s.mu.Lock()
	first, room, cursor, started := s.ended == nil, s.room, s.cursor, s.started
	if first {
		s.ended = why
		if why.code == 0 {
			s.conn.Drop()
		} else {
			s.conn.Hurry(goodbyeTime) // a write that hangs must not hold the goodbye up
			s.conn.ReadBy(time.Now().Add(2 * goodbyeTime))
			s.writeLocked()
		}
	}
	s.mu.Unlock()
	if first && started {
		s.speaks.moved(s.hub, room, cursor)
	}
	if first {
		s.hub.leave(s, room)
		s.hub.opts.Metrics.closed(why.label)
		s.hub.log(s.id, room, why)
	}
}

// log says why a link ended. What a page does (leaving, being replaced) is not
// worth more than debug; what an operator should know is.
func (h *Hub) log(session, room string, why *ending) {
	log := h.opts.Logger.Debug
	if why.label == "internal" {
		log = h.opts.Logger.Error
	}
	args := []any{"room", room, "session", session, "reason", why.label}
	if why.refusal != nil && why.refusal.Cause != nil {
		args = append(args, "error", why.refusal.Cause)
	}
	log("link closed", args...)
}

// due is called by the wheel: it marks what is due and says when to be woken
// next, or 0 for never.
func (s *Session) due(now time.Time) time.Duration {
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		return 0
	}
	o := &s.hub.opts
	var why *ending
	if !now.Before(s.nextBeat) {
		if s.unanswered >= 2 {
			why = endSilent
		} else {
			s.unanswered++
			s.beat = true
			s.nextBeat = now.Add(o.Heartbeat)
			s.writeLocked()
		}
	}
	next := s.nextBeat
	if !s.expires.IsZero() && !o.Outlive {
		next, why = earlier(now, next, s.expires.Add(o.TokenGrace), why, endTokenExpired)
	}
	if !s.notLive.IsZero() {
		next, why = earlier(now, next, s.notLive.Add(o.NotLiveFor), why, endNotLive)
	}
	s.mu.Unlock()
	if why != nil {
		s.end(why)
		return 0
	}
	return max(next.Sub(now), wheelStep)
}

// earlier moves next to a deadline, or names its ending when it has passed.
func earlier(now, next, deadline time.Time, why, ending *ending) (time.Time, *ending) {
	if !now.Before(deadline) {
		return next, ending
	}
	if deadline.Before(next) {
		next = deadline
	}
	return next, why
}
