// Package logtest is what every log must do: the contract of [chat.Log] as a
// suite of tests, and the smallest log that passes it.
package logtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/text"
)

// Memory is the contract written down as plainly as possible: a log that keeps
// its word except about surviving. It stands in where a test is about
// something else than the store (fake time, fuzzing), and passes [Run] like
// the real ones.
type Memory struct {
	id string

	mu    sync.Mutex
	rooms map[string][]chat.Row // guarded by mu
	fail  Failure               // guarded by mu
}

// Failure decides whether an Append fails: with err, before (written false) or
// after (written true) the rows are stored.
type Failure func(room string, rows []chat.Row) (written bool, err error)

// FailWith asks f at every Append from now on; nil: none fails.
func (m *Memory) FailWith(f Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

var (
	_ chat.Log      = (*Memory)(nil)
	_ chat.Searcher = (*Memory)(nil)
)

// NewMemory makes an empty log.
func NewMemory(id string) *Memory {
	return &Memory{id: id, rooms: map[string][]chat.Row{}}
}

// ID implements [chat.Log].
func (m *Memory) ID() string { return m.id }

// Append implements [chat.Log].
func (m *Memory) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", chat.ErrLogUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var failure error
	if m.fail != nil {
		written, err := m.fail(room, rows)
		if err != nil && !written {
			return nil, err
		}
		failure = err
	}
	have := m.rooms[room]
	if int64(len(have)) != after {
		return nil, &chat.BehindError{Rows: slices.Clone(have[min(int64(len(have)), after):])}
	}
	stored := slices.Clone(rows)
	for i := range stored {
		row := &stored[i]
		for _, earlier := range [][]chat.Row{have, stored[:i]} {
			for j := range earlier {
				if earlier[j].Idem == row.Idem {
					return nil, &chat.DuplicateError{Row: earlier[j]}
				}
			}
			if n := len(earlier); n > 0 && earlier[n-1].At.After(row.At) {
				row.At = earlier[n-1].At
			}
		}
		row.Room, row.Seq = room, after+1+int64(i)
		row.At = row.At.UTC().Truncate(time.Millisecond)
	}
	m.rooms[room] = append(have, stored...)
	return slices.Clone(stored), failure
}

func (m *Memory) all(room string) []chat.Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rooms[room])
}

// After implements [chat.Log].
func (m *Memory) After(_ context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	rows := m.all(room)
	rows = rows[min(int64(len(rows)), after):]
	return rows[:min(len(rows), limit)], nil
}

// Before implements [chat.Log].
func (m *Memory) Before(_ context.Context, room string, before int64, limit int) ([]chat.Row, error) {
	rows := m.all(room)
	if before > 0 {
		rows = rows[:min(int64(len(rows)), before-1)]
	}
	return rows[max(0, len(rows)-limit):], nil
}

// ByIdem implements [chat.Log].
func (m *Memory) ByIdem(_ context.Context, room, idem string) (chat.Row, bool, error) {
	for _, row := range m.all(room) {
		if row.Idem == idem {
			return row, true, nil
		}
	}
	return chat.Row{}, false, nil
}

// Marks implements [chat.Log].
func (m *Memory) Marks(_ context.Context, room string, after int64) (marks []chat.Row, last chat.Row, err error) {
	for _, row := range m.all(room) {
		if last = row; row.Kind != chat.KindMessage && row.Seq > after {
			marks = append(marks, row)
		}
	}
	return marks, last, nil
}

// Heads implements [chat.Log].
func (m *Memory) Heads(_ context.Context, rooms []string) (map[string]int64, error) {
	heads := map[string]int64{}
	for _, room := range rooms {
		if n := len(m.all(room)); n > 0 {
			heads[room] = int64(n)
		}
	}
	return heads, nil
}

// Live implements [chat.Log].
func (m *Memory) Live(context.Context) ([]string, error) {
	m.mu.Lock()
	names := make([]string, 0, len(m.rooms))
	for room := range m.rooms {
		names = append(names, room)
	}
	m.mu.Unlock()
	slices.Sort(names)
	return slices.DeleteFunc(names, func(room string) bool {
		st := chat.State{Room: room}
		for _, row := range m.all(room) {
			st = st.Apply(row)
		}
		return !st.Live()
	}), nil
}

// Search implements [chat.Searcher], by looking at every row.
func (m *Memory) Search(_ context.Context, room string, words []string, before int64, limit int) (found []chat.Row, next int64, err error) {
	rows, _ := m.Before(context.Background(), room, before, len(m.all(room)))
	for _, row := range slices.Backward(rows) {
		if row.Kind != chat.KindMessage || !text.ContainsAll(text.Fold(row.Text), words) {
			continue
		}
		if found = append(found, row); len(found) == limit {
			next = row.Seq
			break
		}
	}
	slices.Reverse(found)
	if next == 1 {
		next = 0
	}
	return found, next, nil
}
