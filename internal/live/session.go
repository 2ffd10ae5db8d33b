package live

import (
	"context"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

const (
	backlog     = 1000            // rows that a session without a cursor goes back at most, and that one is skipped ahead to
	skipBehind  = 2000            // rows behind from which a session is skipped ahead
	goodbyeTime = 5 * time.Second // for the peer to take and answer a goodbye
	replyTime   = 10 * time.Second
)

// Session is one connection that reads a room: a cursor on its log, and a peer.
// Links and followers share everything in here and differ in the transport.
type Session struct {
	// Set once, before anybody else sees the session.
	hub    *Hub
	id     string
	lang   chat.Lang
	counts *counts
	peer   transport

	mu sync.Mutex
	// Set once, before the first row is written and before the hub knows the
	// session by its room: whoever is after that reads it freely.
	room string
	// Guarded by mu.
	writing    bool      // somebody takes steps, or is about to
	started    bool      // rows may be sent, after the welcome
	welcome    []byte    // to be sent first
	cursor     int64     // everything up to here has been written to the peer
	head       int64     // the room's end, as far as the session was told
	behind     time.Time // since when cursor < head; zero when level
	resting    bool      // the log did not give what follows cursor; the next nudge asks it again
	reply      []byte    // an answer to the peer that is to be sent
	beatDue    bool      // a heartbeat is to be sent
	unanswered int       // heartbeats since the peer last gave a sign of life
	nextBeat   time.Time
	expires    time.Time // when the token ends for this session; zero: never
	notLive    time.Time // since when a link's broadcast is over; zero while it runs
	ended      *ending

	parted bool // owned by who takes steps: the goodbye is said, nothing follows
}

// transport is how a session reaches its peer: [link] over a WebSocket, in one
// of two dialects, and [follower] over server-sent events. Unless said
// otherwise its methods are called by the one goroutine that takes steps.
type transport interface {
	// wake has steps called soon. Whoever calls it holds the session's mu; it
	// never blocks.
	wake()

	// next gives the messages that bring a peer on from its cursor, in a room
	// that is known to reach to head, and says in frame to where. A frame whose
	// to is the cursor means that the log has nothing there.
	next(ctx context.Context, cursor, head int64) (frame, [][]byte, error)

	// write sends a message, failing when the peer has not taken all of it in
	// SlowAfter; beat does so with a heartbeat.
	write(message []byte) error
	beat() error

	// moved hears what the peer was sent.
	moved(f frame)

	// hangUp makes a write under way end soon, because the session has ended.
	// Whoever calls it holds the session's mu; it never blocks.
	hangUp(why *ending)

	// goodbye tells the peer why the session has ended. It is the last call.
	goodbye(why *ending)

	// left hears, once, that the session has ended. Any goroutine may call it.
	left()

	// drop ends the connection at once. Any goroutine may call it.
	drop()
}

func (h *Hub) newSession(lang chat.Lang, c *counts) Session {
	return Session{hub: h, id: h.opts.NewID(), lang: lang, counts: c}
}

// beginLocked sets the session off in its room.
func (s *Session) beginLocked(st chat.State, cursor int64, welcome []byte) {
	s.cursor, s.head = cursor, max(s.head, st.Seq)
	s.nextBeat = time.Now().Add(s.hub.opts.Heartbeat)
	s.started, s.welcome = true, welcome
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
	if s.cursor < s.head || s.welcome != nil {
		s.writeLocked()
	}
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
		s.peer.hangUp(why) // a write that hangs must not hold the goodbye up
		s.writeLocked()
	}
	s.mu.Unlock()
	if first {
		s.peer.left()
		s.counts.closed(why.label)
		s.logEnd(room, why)
	}
}

// logEnd says why a session ended. What a peer does (leaving, being replaced) is
// not worth more than debug; what an operator should know is.
func (s *Session) logEnd(room string, why *ending) {
	log := s.hub.opts.Logger.Debug
	if why.label == "internal" {
		log = s.hub.opts.Logger.Error
	}
	args := []any{"room", room, "session", s.id, "reason", why.label}
	if why.refusal != nil && why.refusal.Cause != nil {
		args = append(args, "error", why.refusal.Cause)
	}
	log(s.counts.kind+" closed", args...)
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
			s.beatDue = true
			s.nextBeat = now.Add(o.Heartbeat)
			s.writeLocked()
		}
	}
	next := s.nextBeat
	if !s.expires.IsZero() {
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
