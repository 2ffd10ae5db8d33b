package live

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// readAhead is how many rows are asked of the log for one frame; a frame of the
// shortest lines holds about 80.
const readAhead = 100

// frames builds the signed frames of rooms, each once: who asks for one that is
// being built waits for it. The last few of each room are kept, as sessions that
// stand at the same place ask for the same one, and those of a room stand at few.
type frames struct {
	log chat.Log
	key seal.Key

	mu     sync.Mutex
	recent map[string][]*framing // guarded by mu, by room, the newest last
}

// recentFrames is how many frames are kept of a room. Those of its sessions that
// lag stand apart from the others.
const recentFrames = 4

// framing is one frame and its making.
type framing struct {
	after int64
	head  int64     // guarded by frames.mu: it holds for whoever knows the room to reach to here
	begun time.Time // so that it can be dropped
	done  chan struct{}

	// Read-only once done is closed.
	frame frame
	err   error
}

// frame is a run of rows as every session sends it. It is read-only.
type frame struct {
	after, to int64 // rows after+1 … to
	skips     bool  // they are passed over; there is no data
	full      bool  // it would be the same however far the room grows
	data      []byte
	event     func() []byte // data as a server-sent event, made when it is first asked for
	marks     []chat.Row    // the rows among them that sessions act on
	oldest    chat.Row
}

// after gives the frame that follows a position in a room whose head is known
// to be at least head. Its to is after when the log has nothing.
func (f *frames) after(ctx context.Context, room string, after, head int64) (frame, error) {
	return f.get(ctx, room, after, head, readAhead)
}

// upTo is after for sessions that are told of the same heads: none of its rows
// is beyond head, unless somebody asked for more before. So those who were apart
// stand at the same place when they have come to head, however fast it moves.
func (f *frames) upTo(ctx context.Context, room string, after, head int64) (frame, error) {
	return f.get(ctx, room, after, head, int(min(head-after, readAhead)))
}

func (f *frames) get(ctx context.Context, room string, after, head int64, limit int) (frame, error) {
	m, mine := f.join(room, after, head)
	if mine {
		m.frame, m.err = f.read(ctx, room, after, limit)
		f.made(room, m)
		close(m.done)
		return m.frame, m.err
	}
	select {
	case <-m.done:
	case <-ctx.Done():
		return frame{to: after}, ctx.Err()
	}
	if m.err != nil {
		return frame{to: after}, nil // who made it tells of the error, once
	}
	return m.frame, nil
}

// join finds the frame, made or in the making, or begins one, which is then the
// caller's to make.
func (f *frames) join(room string, after, head int64) (m *framing, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.recent[room] {
		if m.after == after && (m.head >= head || m.isFull()) {
			return m, false
		}
	}
	m = &framing{after: after, head: head, begun: time.Now(), done: make(chan struct{})}
	all := append(f.recent[room], m)
	f.recent[room] = slices.Delete(all, 0, max(0, len(all)-recentFrames))
	return m, true
}

func (m *framing) isFull() bool {
	select {
	case <-m.done:
		return m.frame.full
	default:
		return false
	}
}

func (f *frames) read(ctx context.Context, room string, after int64, limit int) (frame, error) {
	rows, err := f.log.After(ctx, room, after, limit)
	if err != nil || len(rows) == 0 {
		return frame{to: after}, err
	}
	return f.build(room, rows)
}

// made notes how far a frame goes. One that came to nothing is asked for again.
func (f *frames) made(room string, m *framing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.head = max(m.head, m.frame.to); m.err == nil && m.frame.to > m.after {
		return
	}
	f.recent[room] = slices.DeleteFunc(f.recent[room], func(other *framing) bool { return other == m })
	if len(f.recent[room]) == 0 {
		delete(f.recent, room)
	}
}

// keep drops the frames that are older than a time: a room where nobody says
// anything holds none.
func (f *frames) keep(since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for room, all := range f.recent {
		all = slices.DeleteFunc(all, func(m *framing) bool { return m.begun.Before(since) })
		if f.recent[room] = all; len(all) == 0 {
			delete(f.recent, room)
		}
	}
}

// build signs as many of the rows as one frame holds, one at least: an event is
// always smaller than a frame, see TestLargestEventFits.
func (f *frames) build(room string, rows []chat.Row) (frame, error) {
	out := frame{after: rows[0].Seq - 1, oldest: rows[0]}
	head, err := json.Marshal(struct {
		Room string `json:"room"`
		Log  string `json:"log"`
	}{room, f.log.ID()})
	if err != nil {
		return frame{}, err
	}
	payload := append(head[:len(head)-1], `,"events":[`...)
	payload = slices.Grow(payload, min(len(rows)*eventRoom, wire.MaxEventsFrame))
	escaped := wire.EscapedLen(payload) + len("]}")
	for i, row := range rows {
		before := len(payload)
		if i > 0 {
			payload = append(payload, ',')
		}
		payload = appendEvent(payload, row.Event())
		escaped += wire.EscapedLen(payload[before:])
		if i > 0 && wire.EventsFrameLen(escaped, f.key.KID(), signatureRoom) > wire.MaxEventsFrame {
			payload = payload[:before]
			out.full = true
			break
		}
		out.to = row.Seq
		if row.Kind != chat.KindMessage {
			out.marks = append(out.marks, row)
		}
	}
	payload = append(payload, "]}"...)
	data := wire.Encode(wire.Events{Payload: string(payload), KID: f.key.KID(), Sig: f.key.Sign(payload)})
	to := out.to
	out.data, out.event = data, sync.OnceValue(func() []byte { return eventMessage("events", to, data) })
	return out, nil
}

// eventRoom is what most events take, in bytes: ids, times, and 100 Hangul.
const eventRoom = 640

// signatureRoom has the length of every signature: 64 bytes in base64url.
var signatureRoom = string(bytes.Repeat([]byte{'A'}, 86))

// encodeJSON writes without escaping < and > for HTML, which would make every
// relay carry six bytes for one.
func encodeJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
