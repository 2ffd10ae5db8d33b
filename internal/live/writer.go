package live

import (
	"context"
	"time"

	"github.com/hanmadi/hanmadi/internal/socket"
)

// writeLocked sees to it that somebody takes steps until there is nothing more
// to send. Before the start only a goodbye is.
func (s *Session) writeLocked() {
	if s.writing || s.ended == nil && !s.started {
		return
	}
	s.writing = true
	s.peer.wake()
}

// steps sends what there is until there is nothing.
func (s *Session) steps() {
	for s.step() {
	}
}

// step sends one thing, the most urgent, and reports whether there may be more.
func (s *Session) step() bool {
	s.mu.Lock()
	ended, message, beat := s.ended, s.welcome, s.beatDue
	cursor, head := s.cursor, s.head
	switch {
	case ended != nil:
	case message != nil:
		s.welcome = nil
	case s.reply != nil:
		message, s.reply = s.reply, nil
	case beat:
		s.beatDue = false
	case cursor >= head, s.resting:
		s.writing = false
		s.mu.Unlock()
		return false
	}
	s.mu.Unlock()

	switch {
	case ended != nil:
		s.part(ended)
	case message != nil:
		s.sent(s.peer.write(message))
	case beat:
		s.sent(s.peer.beat())
	default:
		s.proceed(cursor, head)
	}
	return !s.parted
}

// part says the goodbye, if anybody is there to hear it.
func (s *Session) part(why *ending) {
	if why.code != 0 {
		s.peer.goodbye(why)
	}
	s.parted = true
}

// sent reports whether a message was; a failure ends the session.
func (s *Session) sent(err error) bool {
	switch {
	case err == nil:
		return true
	case socket.TimedOut(err):
		s.end(endTooSlow)
	default:
		s.end(endGone)
	}
	return false
}

// proceed writes what follows the cursor, as many rows as a frame holds.
func (s *Session) proceed(cursor, head int64) {
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	f, messages, err := s.peer.next(ctx, cursor, head)
	cancel()
	if err != nil || f.to == cursor {
		s.rest(head, err)
		return
	}
	for _, message := range messages {
		if !s.sent(s.peer.write(message)) {
			return
		}
	}
	s.counts.delivered(f)
	s.movedTo(f.to)
	s.peer.moved(f)
}

// rest waits for the next nudge, if none came while the log was asked; the slow
// timer gives one.
func (s *Session) rest(head int64, err error) {
	if err != nil {
		s.hub.opts.Logger.Warn("cannot read the log for a "+s.counts.kind, "room", s.room, "error", err)
	}
	s.mu.Lock()
	s.resting = s.head == head
	s.mu.Unlock()
}

func (s *Session) movedTo(to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = to
	s.head = max(s.head, to)
	switch {
	case s.cursor == s.head:
		s.behind = time.Time{}
	default:
		s.behind = time.Now() // it moved: what waits now has waited since
	}
}
