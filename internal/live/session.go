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
	relayed    int64     // everything up to here has been relayed, says the page
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
}

// Accept upgrades a request to a link and returns while the link lives on. On
// error it has answered the request. Whoever is refused is upgraded all the
// same, because a browser learns nothing from a refused upgrade.
func (h *Hub) Accept(w http.ResponseWriter, r *http.Request, a Arrival) error {
	conn, err := socket.Accept(w, r, wire.MaxClientFrame)
	if err != nil {
		return err
	}
	s := &Session{hub: h, conn: conn, lang: a.Lang, id: h.opts.NewID()}
	if err := h.admit(s); err != nil {
		go s.turnAway(err) // not waited for: a drain would never end
		return nil
	}
	h.running.Go(func() { s.run(a) })
	return nil
}

func (s *Session) turnAway(why error) {
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
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	defer cancel()
	st, err := s.hub.opts.Take(ctx, *user, s.id)
	if err != nil {
		return endFor(err)
	}
	s.begin(st, start, user.Expires)
	s.hub.enter(s)
	s.hub.wheel.add(s, s.hub.opts.Heartbeat)
	s.advance(st.Seq)
	return nil
}

func (s *Session) awaitStart() (chat.User, wire.Start, *ending) {
	s.conn.ReadBy(time.Now().Add(s.hub.opts.StartWithin))
	data, err := s.conn.Read()
	if err != nil {
		if socket.TimedOut(err) {
			return chat.User{}, wire.Start{}, endProtocol("no start frame in time")
		}
		return chat.User{}, wire.Start{}, readEnding(err)
	}
	s.conn.ReadBy(time.Time{})
	f, err := wire.DecodeClient(data)
	start, ok := f.(wire.Start)
	switch {
	case err != nil:
		return chat.User{}, wire.Start{}, endProtocol(wire.Reason(err))
	case !ok:
		return chat.User{}, wire.Start{}, endProtocol("the first frame must be start")
	case start.Role != "":
		return chat.User{}, wire.Start{}, endProtocol("role " + start.Role + " is not known here")
	}
	user, err := s.hub.opts.Verify(start.Token)
	if err != nil {
		return chat.User{}, wire.Start{}, endFor(err)
	}
	return user, start, nil
}

// begin sets the cursor. One beyond the head, or of another log, means that the
// client remembers a log that is no more: it gets what a newcomer gets, and the
// welcome tells it so.
func (s *Session) begin(st chat.State, start wire.Start, expires time.Time) {
	id := s.hub.opts.Log.ID()
	cursor := max(st.Broadcast.Seq-1, st.Seq-backlog, 0)
	if start.After != nil && *start.After <= st.Seq && (start.Log == "" || start.Log == id) {
		cursor = *start.After
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room, s.rank = st.Room, st.Link.Seq
	s.cursor, s.head, s.expires = cursor, st.Seq, expires
	s.nextBeat = time.Now().Add(s.hub.opts.Heartbeat)
	s.started = true
	s.welcome = wire.Encode(wire.Welcome{Room: s.room, Log: id, Head: st.Seq, Session: s.id,
		HeartbeatS: int(s.hub.opts.Heartbeat / time.Second)})
}

// listen reads until the connection ends. What comes after the end of the
// session is read only to find the peer's close.
func (s *Session) listen() {
	for {
		data, err := s.conn.Read()
		if err != nil {
			s.end(readEnding(err))
			return
		}
		if s.hasEnded() {
			continue
		}
		if end := s.hear(data); end != nil {
			s.end(end)
		}
	}
}

func readEnding(err error) *ending {
	switch {
	case errors.Is(err, socket.ErrNotText):
		return endProtocol("binary message")
	case socket.TooLarge(err):
		return endProtocol("message too large")
	default:
		return endGone
	}
}

// hear acts on a frame from the page.
func (s *Session) hear(data []byte) *ending {
	f, err := wire.DecodeClient(data)
	if errors.Is(err, wire.ErrUnknownType) {
		err = nil // a newer page; what it says is not for us
	}
	if err != nil {
		return endProtocol(wire.Reason(err))
	}
	var fresh chat.User
	switch f := f.(type) {
	case wire.Start:
		return endProtocol("a second start")
	case wire.Token:
		if fresh, err = s.hub.opts.Verify(f.Token); err != nil {
			return endFor(err)
		}
		if fresh.ID != s.room {
			return endFor(chat.Refuse(chat.TokenMismatch))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unanswered = 0
	switch f := f.(type) {
	case wire.Relayed:
		s.relayed = max(s.relayed, min(f.Seq, s.cursor))
	case wire.Ping:
		s.pong = true
		s.writeLocked()
	case wire.Token:
		s.expires = fresh.Expires
	}
	return nil
}

// advance tells the session how far its room has grown. It never blocks.
func (s *Session) advance(head int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head = max(s.head, head)
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
	first, room := s.ended == nil, s.room
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
	next := s.nextBeat
	var why *ending
	if !s.expires.IsZero() && !o.Outlive {
		next, why = earlier(now, next, s.expires.Add(o.TokenGrace), why, endTokenExpired)
	}
	if !s.notLive.IsZero() {
		next, why = earlier(now, next, s.notLive.Add(o.NotLiveFor), why, endNotLive)
	}
	if why == nil && !now.Before(s.nextBeat) {
		if s.unanswered >= 2 {
			why = endSilent
		} else {
			s.unanswered++
			s.beat = true
			s.nextBeat = now.Add(o.Heartbeat)
			next = s.nextBeat
			s.writeLocked()
		}
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
