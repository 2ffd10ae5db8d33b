package chatlog

import (
	"context"
	"slices"
	"sync"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Tail keeps the newest rows of active rooms in memory, in front of a log. It
// is a [chat.Log] itself and changes no answer, only where it comes from: it
// is filled before Append returns, takes rows only at its end + 1, and whatever
// it does not hold is read from the log. Its size is bounded in bytes over all
// rooms; the oldest rows leave first.
type Tail struct {
	chat.Log
	max     int
	metrics *Metrics

	mu    sync.Mutex
	rooms map[string]*tailRoom // guarded by mu
	order []string             // guarded by mu: the room of each row held, oldest first
	size  int                  // guarded by mu
}

type tailRoom struct {
	rows []chat.Row // with no gap
}

// NewTail puts a tail of at most maxBytes in front of a log. Metrics may be nil.
func NewTail(log chat.Log, maxBytes int, metrics *Metrics) *Tail {
	return &Tail{Log: log, max: maxBytes, metrics: metrics.orNew(), rooms: map[string]*tailRoom{}}
}

// Append implements [chat.Log].
func (t *Tail) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	stored, err := t.Log.Append(ctx, room, after, rows)
	if err == nil {
		t.push(room, stored)
	}
	return stored, err
}

// After implements [chat.Log].
func (t *Tail) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	if rows := t.held(room, after, limit); rows != nil {
		t.metrics.tail.WithLabelValues("hit").Inc()
		return rows, nil
	}
	t.metrics.tail.WithLabelValues("miss").Inc()
	rows, err := t.Log.After(ctx, room, after, limit)
	if err == nil && t.endsAt(room, after) {
		t.push(room, rows) // rows of another node: the tail goes on behind them
	}
	return rows, err
}

func (t *Tail) endsAt(room string, seq int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	return r != nil && r.rows[len(r.rows)-1].Seq == seq
}

// held gives the rows that follow, or nil when the first of them is not here.
// That nothing follows is never said from memory: only the store knows.
func (t *Tail) held(room string, after int64, limit int) []chat.Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if r == nil || after+1 < r.rows[0].Seq || after >= r.rows[len(r.rows)-1].Seq || limit <= 0 {
		return nil
	}
	from := int(after + 1 - r.rows[0].Seq)
	return slices.Clone(r.rows[from:min(len(r.rows), from+limit)])
}

func (t *Tail) push(room string, rows []chat.Row) {
	if len(rows) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rooms[room]
	if r == nil {
		r = &tailRoom{}
		t.rooms[room] = r
	}
	for _, row := range rows {
		if n := len(r.rows); n > 0 && row.Seq != r.rows[n-1].Seq+1 {
			break
		}
		r.rows = append(r.rows, row)
		t.order = append(t.order, room)
		t.size += sizeOf(row)
	}
	t.shrinkLocked()
	t.metrics.held.Set(float64(t.size))
}

func (t *Tail) shrinkLocked() {
	drop := 0
	for t.size > t.max && drop < len(t.order) {
		name := t.order[drop]
		r := t.rooms[name]
		t.size -= sizeOf(r.rows[0])
		r.rows[0] = chat.Row{} // let go of its strings before the slice moves
		if r.rows = r.rows[1:]; len(r.rows) == 0 {
			delete(t.rooms, name)
		}
		drop++
	}
	t.order = t.order[drop:]
}

// rowOverhead is the size of a row's struct and of its place in the order.
const rowOverhead = 400

func sizeOf(r chat.Row) int {
	n := rowOverhead + len(r.ID) + len(r.Broadcast) + len(r.User.ID) + len(r.User.Nickname) + len(r.Text) + len(r.Idem) +
		len(r.Details.Attrs) + len(r.Details.Title) + len(r.Staff.Session)
	if r.Details.Reply != nil {
		n += 64 + len(r.Details.Reply.Nickname) + len(r.Details.Reply.Text)
	}
	return n
}
