package live

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// readAhead is how many rows are asked of the log for one frame; a frame of the
// shortest lines holds about 80.
const readAhead = 100

// frames builds the signed frames of rooms. The last of each room is kept, as
// sessions that stand at the same place ask for the same one.
type frames struct {
	log chat.Log
	key seal.Key

	mu   sync.Mutex
	last map[string]frame // guarded by mu, by room
}

// frame is a run of rows as every session sends it. It is read-only.
type frame struct {
	after, to int64 // rows after+1 … to
	head      int64 // of the room when it was built
	full      bool  // it would be the same however far the room grows
	data      []byte
	marks     []chat.Row // the rows among them that sessions act on
	oldest    chat.Row
}

// after gives the frame that follows a position in a room whose head is known
// to be at least head. Its to is after when the log has nothing.
func (f *frames) after(ctx context.Context, room string, after, head int64) (frame, error) {
	f.mu.Lock()
	last, ok := f.last[room]
	f.mu.Unlock()
	if ok && last.after == after && (last.head >= head || last.full) {
		return last, nil
	}
	rows, err := f.log.After(ctx, room, after, readAhead)
	if err != nil || len(rows) == 0 {
		return frame{to: after}, err
	}
	built, err := f.build(room, rows)
	if err != nil {
		return frame{to: after}, err
	}
	built.head = head
	f.mu.Lock()
	f.last[room] = built
	f.mu.Unlock()
	return built, nil
}

// keep drops the frames of rooms that have no session.
func (f *frames) keep(rooms map[string]*Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for room := range f.last {
		if rooms[room] == nil {
			delete(f.last, room)
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
	out.data = wire.Encode(wire.Events{Payload: string(payload), KID: f.key.KID(), Sig: f.key.Sign(payload)})
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
