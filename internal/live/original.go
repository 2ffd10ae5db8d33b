package live

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// dialect is how a link speaks: our own frames, or the original platform's.
// Its life is the same in both.
type dialect interface {
	// start reads the first frame.
	start(data []byte) (wire.Start, *ending)
	// begin says where a link starts that has taken its room, and what it is
	// told first, nil for nothing.
	begin(h *Hub, st chat.State, l *link, start wire.Start) (cursor int64, welcome []byte)
	// rows gives the messages that follow a place, in order, up to which row
	// they go, and the rows among them that sessions act on.
	rows(ctx context.Context, h *Hub, room string, after, head int64) (frame, [][]byte, error)
	// beat is the message of a heartbeat; nil: a ping of the protocol.
	beat() []byte
	// hear acts on a frame of the page.
	hear(l *link, data []byte) *ending
	// moved hears how far a link has come, at its end at last.
	moved(h *Hub, room string, to int64)
	// goodbye is the last message before the close, nil for none.
	goodbye(why *ending, lang chat.Lang) []byte
}

// original is the dialect of the platform's first chat server. Its pages know
// no cursor: a link goes on after the last line that the presenter's previous
// one was sent, if that one ended not long ago. Else it starts from now, but for
// the lines that were taken while nobody was linked.
type original struct{ zone *time.Location }

// rememberOriginal is how long the place of such a link is kept after it.
const rememberOriginal = 10 * time.Minute

// place is how far a presenter's links of the original dialect have come.
type place struct {
	seq int64
	at  time.Time // when the last of them was seen open
}

// The original's frames.
type (
	originalStart struct {
		ID    string `json:"id"`
		Token string `json:"token"`
	}
	originalLine struct {
		ID       string `json:"id"`
		Nickname string `json:"nickname"`
		Message  string `json:"message"`
		Time     string `json:"time"`
	}
	originalError struct {
		ID      string `json:"id"`
		Message string `json:"message"`
	}
	originalTokenException struct {
		ID       string `json:"id"`
		Response string `json:"response"`
		Message  string `json:"message"`
	}
)

func (o original) start(data []byte) (wire.Start, *ending) {
	var f originalStart
	if len(data) > wire.MaxClientFrame {
		return wire.Start{}, endProtocol("message too large")
	}
	if err := wire.Decode(data, &f); err != nil {
		return wire.Start{}, endProtocol(wire.Reason(err))
	}
	if f.ID != "start" {
		return wire.Start{}, endProtocol("the first frame must be start")
	}
	return wire.Start{Token: f.Token}, nil
}

func (o original) begin(h *Hub, st chat.State, _ *link, _ wire.Start) (cursor int64, welcome []byte) {
	h.mu.Lock()
	p, known := h.places[st.Room]
	h.mu.Unlock()
	if known && time.Since(p.at) < rememberOriginal && p.seq <= st.Seq {
		cursor = max(p.seq, st.Seq-backlog)
	} else {
		cursor = h.beforeQueued(st)
	}
	o.moved(h, st.Room, cursor) // also a link that is sent nothing has a place
	return cursor, nil
}

// beforeQueued is the place before the lines that were taken while nobody was
// linked: whoever sent them was told that they will be shown.
func (h *Hub) beforeQueued(st chat.State) int64 {
	linked, since := h.Linked(st.Room)
	if linked || !st.Live() {
		return st.Seq
	}
	ctx, cancel := context.WithTimeout(context.Background(), replyTime)
	defer cancel()
	rows, err := h.opts.Log.Before(ctx, st.Room, st.Seq+1, backlog)
	if err != nil {
		h.opts.Logger.Warn("cannot read what was said before a link", "room", st.Room, "error", err)
	}
	cursor, since := st.Seq, since.Truncate(time.Millisecond) // as rows have it
	for _, row := range slices.Backward(rows) {
		if row.Seq <= st.Broadcast.Seq || row.At.Before(since) {
			break
		}
		cursor = row.Seq - 1
	}
	return cursor
}

// agePlacesLocked forgets places; one is not older than the link that has it.
func (h *Hub) agePlacesLocked(now time.Time) {
	for room, p := range h.places {
		if l := h.rooms[room]; l != nil && l.speaks != dialect(native{}) {
			h.places[room] = place{p.seq, now}
		} else if now.Sub(p.at) > rememberOriginal {
			delete(h.places, room)
		}
	}
}

func (o original) rows(ctx context.Context, h *Hub, room string, after, _ int64) (frame, [][]byte, error) {
	rows, err := h.opts.Log.After(ctx, room, after, readAhead)
	if err != nil || len(rows) == 0 {
		return frame{to: after}, nil, err
	}
	f := frame{after: after, to: rows[len(rows)-1].Seq, oldest: rows[0]}
	var messages [][]byte
	for _, row := range rows {
		e := row.Event()
		if e.Kind != chat.KindMessage {
			f.marks = append(f.marks, row)
			continue
		}
		message, err := encodeJSON(originalLine{"sendChatting", e.User.Nickname, e.Text, row.At.In(o.zone).Format("15:04")})
		if err != nil {
			return f, nil, err
		}
		messages = append(messages, message)
	}
	return f, messages, nil
}

// beat is none: a page that knows only its own frames answers a ping of the
// protocol all the same, because its browser does.
func (o original) beat() []byte { return nil }

// hear takes whatever comes as a sign of life. The original's page has nothing
// to say after its start, which it also sends where a header said already who
// it is; its token must not name somebody else then.
func (o original) hear(l *link, data []byte) *ending {
	var f originalStart
	if wire.Decode(data, &f) != nil || f.ID != "start" || f.Token == "" {
		return nil
	}
	user, err := l.hub.opts.Verify(f.Token)
	if err == nil && user.ID != l.room {
		err = chat.Refuse(chat.TokenMismatch)
	}
	if err != nil {
		return endFor(err)
	}
	return nil
}

// moved never goes back: of two links that take turns the older may tell its
// end last.
func (o original) moved(h *Hub, room string, to int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.places[room] = place{max(to, h.places[room].seq), time.Now()}
}

func (o original) goodbye(why *ending, _ chat.Lang) []byte {
	var f any = originalError{"error", why.refusal.Detail(chat.Korean)}
	switch why.refusal.Code {
	case chat.TokenExpired, chat.TokenInvalid, chat.TokenMissing, chat.TokenMismatch, chat.IdentityInvalid, chat.IdentityUntrusted:
		f = originalTokenException{"tokenException", "reject", "Jwt Exception"}
	}
	message, err := encodeJSON(f)
	if err != nil {
		return nil
	}
	return message
}

// native is our own dialect, see package wire.
type native struct{}

func (native) start(data []byte) (wire.Start, *ending) {
	f, err := wire.DecodeClient(data)
	start, ok := f.(wire.Start)
	switch {
	case err != nil:
		return wire.Start{}, endProtocol(wire.Reason(err))
	case !ok:
		return wire.Start{}, endProtocol("the first frame must be start")
	case start.Role != "":
		return wire.Start{}, endProtocol("role " + start.Role + " is not known here")
	}
	return start, nil
}

// begin sets the cursor. One beyond the head, or of another log, means that the
// client remembers a log that is no more: it gets what a newcomer gets, and the
// welcome tells it so.
func (native) begin(h *Hub, st chat.State, l *link, start wire.Start) (cursor int64, welcome []byte) {
	id := h.opts.Log.ID()
	cursor = max(st.Broadcast.Seq-1, st.Seq-backlog, 0)
	if !st.Live() {
		cursor = st.Seq - 1 // nothing runs: from the link's own row
	}
	if start.After != nil && *start.After <= st.Seq && (start.Log == "" || start.Log == id) {
		cursor = *start.After
	}
	return cursor, wire.Encode(wire.Welcome{Room: st.Room, Log: id, Head: st.Seq, Session: l.id,
		HeartbeatS: int(h.opts.Heartbeat / time.Second)})
}

func (native) rows(ctx context.Context, h *Hub, room string, after, head int64) (frame, [][]byte, error) {
	f, err := h.frames.after(ctx, room, after, head)
	if err != nil || f.to == after {
		return f, nil, err
	}
	return f, [][]byte{f.data}, nil
}

func (native) beat() []byte { return wire.Encode(wire.Heartbeat{}) }

func (native) moved(*Hub, string, int64) {}

func (native) goodbye(why *ending, lang chat.Lang) []byte {
	return wire.Encode(wire.Error{Code: string(why.refusal.Code), Detail: why.refusal.Detail(lang),
		RetryAfterS: int(chat.WholeSeconds(why.refusal.RetryAfter))})
}

func (native) hear(l *link, data []byte) *ending {
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
		if fresh, err = l.hub.opts.Verify(f.Token); err != nil {
			return endFor(err)
		}
		if fresh.ID != l.room {
			return endFor(chat.Refuse(chat.TokenMismatch))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f := f.(type) {
	case wire.Relayed:
		l.relayed = max(l.relayed, f.Seq)
	case wire.Ping:
		l.reply = wire.Encode(wire.Pong{})
		l.writeLocked()
	case wire.Token:
		l.renewLocked(fresh.Expires)
	}
	return nil
}

// CloseEnded closes a room's link because its broadcast is over.
func (h *Hub) CloseEnded(room string) {
	h.mu.Lock()
	l := h.rooms[room]
	h.mu.Unlock()
	if l != nil {
		l.end(endNotLive)
	}
}
