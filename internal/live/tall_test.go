package live

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// bubbleEpoch is when time begins in a bubble.
var bubbleEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// tall is a log in memory where thousands of lines in a row cost nothing: they
// are made when they are read. Everything else is in the log below, whose seqs
// are smaller by the lines before them.
type tall struct {
	*logtest.Memory

	mu   sync.Mutex
	runs map[string]run // guarded by mu, by room: one at most
}

// run is the lines after+1 … after+lines of a room.
type run struct{ after, lines int64 }

func newTall() *tall {
	return &tall{Memory: logtest.NewMemory("LOG"), runs: map[string]run{}}
}

// TestTallLog holds the log of these tests against the contract of all logs.
func TestTallLog(t *testing.T) {
	logtest.Run(t, func(*testing.T) chat.Log { return newTall() })
}

// grow puts lines at a room's end.
func (l *tall) grow(t *testing.T, room string, lines int64) {
	t.Helper()
	head := headOf(t, l, room)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs[room].lines > 0 {
		t.Fatalf("room %s has grown already", room)
	}
	l.runs[room] = run{head, lines}
}

func (l *tall) run(room string) run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runs[room]
}

func (r run) end() int64 { return r.after + r.lines }

// below is the position in the log below.
func (r run) below(seq int64) int64 { return seq - min(max(seq-r.after, 0), r.lines) }

// above moves rows of the log below to where they stand in this one.
func (r run) above(rows []chat.Row) []chat.Row {
	for i := range rows {
		if rows[i].Seq > r.after {
			rows[i].Seq += r.lines
		}
	}
	return rows
}

// line is a row of the run.
func (r run) line(room string, seq int64) chat.Row {
	row := lineOf(seq)
	row.Room, row.Seq = room, seq
	return row
}

// lineOf is some line of the first moment, so that no row after it is dated in
// the future.
func lineOf(seq int64) chat.Row {
	row := logtest.Line(fmt.Sprintf("line-%d", seq), "한 줄")
	row.At = bubbleEpoch
	return row
}

func (l *tall) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	run := l.run(room)
	if run.lines > 0 && after < run.end() {
		return nil, &chat.BehindError{} // they are read anew
	}
	stored, err := l.Memory.Append(ctx, room, run.below(after), rows)
	if behind, ok := err.(*chat.BehindError); ok {
		behind.Rows = run.above(behind.Rows)
	}
	return run.above(stored), err
}

func (l *tall) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	run := l.run(room)
	var rows []chat.Row
	if after < run.after {
		limit = int(min(int64(limit), run.after-after)) // the rest of them with the next call
	}
	for seq := after + 1; run.after < seq && seq <= run.end() && len(rows) < limit; seq++ {
		rows = append(rows, run.line(room, seq))
	}
	if len(rows) > 0 {
		return rows, nil
	}
	rows, err := l.Memory.After(ctx, room, run.below(after), limit)
	return run.above(rows), err
}

func (l *tall) Marks(ctx context.Context, room string, after int64) ([]chat.Row, chat.Row, error) {
	run := l.run(room)
	marks, last, err := l.Memory.Marks(ctx, room, run.below(after))
	if last.Seq == run.after && run.lines > 0 {
		return run.above(marks), run.line(room, run.end()), err
	}
	return run.above(marks), run.above([]chat.Row{last})[0], err
}

func (l *tall) Heads(ctx context.Context, rooms []string) (map[string]int64, error) {
	heads, err := l.Memory.Heads(ctx, rooms)
	for _, room := range rooms {
		if lines := l.run(room).lines; lines > 0 {
			heads[room] += lines
		}
	}
	return heads, err
}
