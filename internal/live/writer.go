package live

import (
	"context"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/socket"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// writeLocked sees to it that a writing goroutine exists; it ends when there is
// nothing more to send. Before the welcome, and when nobody is there to read a
// goodbye, there is nothing at all.
func (s *Session) writeLocked() {
	if s.writing || s.ended == nil && !s.started || s.ended != nil && s.ended.code == 0 {
		return
	}
	s.writing = true
	if s.admitted {
		s.hub.running.Go(s.write)
	} else {
		go s.write()
	}
}

// write sends what there is, the most urgent first, until there is nothing.
func (s *Session) write() {
	for {
		s.mu.Lock()
		ended, welcome, pong, beat := s.ended, s.welcome, s.pong, s.beat
		cursor, head := s.cursor, s.head
		switch {
		case ended != nil:
			s.mu.Unlock()
			s.goodbye(ended)
			return
		case welcome != nil:
			s.welcome = nil
		case pong:
			s.pong = false
		case beat:
			s.beat = false
		case cursor >= head, s.resting:
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()

		switch {
		case welcome != nil:
			s.send(welcome)
		case pong:
			s.send(wire.Encode(wire.Pong{}))
		case beat:
			s.sendBeat()
		case head-cursor > skipBehind && s.speaks == dialect(native{}):
			s.skip(cursor, head)
		default:
			s.sendRows(cursor, head)
		}
	}
}

// send writes one frame; a failure ends the session.
func (s *Session) send(frame []byte) bool {
	err := s.conn.Write(frame, s.hub.opts.SlowAfter)
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

// skip passes over rows that no page needs to relay any more. What they say of
// the link itself holds all the same.
func (s *Session) skip(cursor, head int64) {
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	marks, _, err := s.hub.opts.Log.Marks(ctx, s.room, cursor)
	cancel()
	if err != nil {
		s.rest(head, err)
		return
	}
	to := head - backlog
	if s.send(wire.Encode(wire.Skipped{To: to})) {
		s.moved(to)
		s.heed(marks)
	}
}

func (s *Session) sendBeat() {
	if frame := s.speaks.beat(); frame != nil {
		s.send(frame)
	} else if s.conn.Ping(s.hub.opts.SlowAfter) != nil {
		s.end(endGone)
	}
}

// sendRows writes the rows that follow the cursor, as many as a frame holds.
func (s *Session) sendRows(cursor, head int64) {
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	f, messages, err := s.speaks.rows(ctx, s.hub, s.room, cursor, head)
	cancel()
	if err != nil || f.to == cursor {
		s.rest(head, err)
		return
	}
	for _, message := range messages {
		if !s.send(message) {
			return
		}
	}
	s.hub.opts.Metrics.delivered(f)
	s.moved(f.to)
	s.speaks.moved(s.hub, s.room, f.to)
	s.heed(f.marks)
}

// rest waits for the next nudge, if none came while the log was asked; the slow
// timer gives one.
func (s *Session) rest(head int64, err error) {
	if err != nil {
		s.hub.opts.Logger.Warn("cannot read the log for a link", "room", s.room, "error", err)
	}
	s.mu.Lock()
	s.resting = s.head == head
	s.mu.Unlock()
}

func (s *Session) moved(to int64) {
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

// heed acts on rows that are about the link itself. They come in the room's
// order, on every node, which is how two nodes agree.
func (s *Session) heed(marks []chat.Row) {
	for _, row := range marks {
		switch row.Kind {
		case chat.KindLink:
			if row.Seq > s.rank {
				s.end(endReplaced)
			}
		case chat.KindBroadcast:
			s.mu.Lock()
			s.notLive = time.Time{}
			if row.Details.State == chat.BroadcastEnded {
				s.notLive = time.Now()
			}
			s.mu.Unlock()
		}
	}
}

// goodbye tells the peer why and waits, in the reading goroutine, for its
// answer. A peer that never reads sees only the end.
func (s *Session) goodbye(why *ending) {
	if why.code == 0 {
		return
	}
	if message := s.speaks.goodbye(why, s.lang); message != nil && s.conn.Write(message, goodbyeTime) != nil {
		s.conn.Drop()
		return
	}
	if s.conn.Close(uint16(why.code), why.code.String(), goodbyeTime) != nil {
		s.conn.Drop()
	}
}
