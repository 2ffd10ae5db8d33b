package chat

import (
	"cmp"
	"context"
	"time"
)

// Opening is what starts a broadcast.
type Opening struct {
	ID        string // "" lets the desk make one
	Title     string
	StartedAt time.Time // zero: now
}

// Bounds in time of a room server's word.
const (
	trustLast = 30 * time.Second // how long the last word holds while the room server fails and nobody is linked
	sameAfter = 30 * time.Second // a broadcast of ours that ended less long ago goes on, when it is live again
)

// word asks the room server whether the presenter is live: nil when there is no
// room server, a refusal when it says no or nobody can say. Its explicit no
// always holds; while it fails, a linked presenter is live, and another one is
// what the room server last said, for a while.
func (d *Desk) word(ctx context.Context, room string) (*Word, error) {
	if d.opts.Directory == nil {
		return nil, nil
	}
	word, err := d.opts.Directory.Live(ctx, room)
	if err != nil {
		linked, _ := d.presence.Linked(room)
		switch known := !word.At.IsZero() && d.opts.Now().Sub(word.At) < trustLast; {
		case linked && (!known || word.Live): // its no outlasts its silence
			word = Word{Live: true}
		case !known:
			return nil, &Refusal{Code: DirectoryUnavailable, RetryAfter: 2 * time.Second, Cause: err}
		}
	}
	if !word.Live {
		return nil, Refuse(BroadcastEndedCode)
	}
	return &word, nil
}

// onAir brings the fold in line with a room server's word that the presenter is
// live: it returns the rows which that takes, and the state that includes them.
func (d *Desk) onAir(st State, word *Word) ([]Row, State) {
	if word == nil || st.Live() && (word.Broadcast == "" || word.Broadcast == st.Broadcast.ID) {
		return nil, st
	}
	if said := word.At.Truncate(time.Millisecond); !word.At.IsZero() && (!said.After(st.Ended) || !said.After(st.Broadcast.Logged)) {
		return nil, st // said before this broadcast began, or the last one ended: it does not know
	}
	var rows []Row
	put := func(row Row) { rows, st = append(rows, row), st.Apply(row) }
	open := Opening{ID: word.Broadcast}
	if st.Live() {
		put(d.ended(st, User{}, "replaced"))
	} else if open.ID == "" && !st.Ended.IsZero() && d.opts.Now().Sub(st.Ended) < sameAfter {
		open.ID = st.Last // a hiccup, not another broadcast
	}
	put(d.started(st, open, User{}))
	return rows, st
}

// GoLive opens the broadcast that the room server speaks of, where it is not
// open yet.
func (d *Desk) GoLive(ctx context.Context, room string, word Word) error {
	_, err := d.Do(ctx, room, func(st State) ([]Row, error) {
		rows, _ := d.onAir(st, &word)
		return rows, nil
	}, nil)
	return err
}

// TakeLink makes a session the one that holds the presenter's room. It opens a
// broadcast where none runs, unless a room server has the say. It returns the state that includes its row, whose
// Link.Seq is the session's rank: a higher one replaces it.
func (d *Desk) TakeLink(ctx context.Context, presenter User, session string) (State, error) {
	var after State
	_, err := d.Do(ctx, presenter.ID, func(st State) ([]Row, error) {
		rows := make([]Row, 0, 2)
		if !st.Live() && d.opts.Directory == nil {
			rows = append(rows, d.started(st, Opening{}, presenter))
			st = st.Apply(rows[0])
		}
		link := d.row(st, d.opts.NewID(), KindLink, presenter)
		link.Staff.Session = session
		return append(rows, link), nil
	}, &after)
	return after, err
}

// StartBroadcast opens a broadcast. One that runs under the same id stays as
// it is (fresh is false); one under another id ends first.
func (d *Desk) StartBroadcast(ctx context.Context, room string, by User, open Opening) (b Broadcast, fresh bool, err error) {
	var after State
	rows, err := d.Do(ctx, room, func(st State) ([]Row, error) {
		var rows []Row
		if st.Live() {
			if open.ID == "" || open.ID == st.Broadcast.ID {
				return nil, nil
			}
			rows = append(rows, d.ended(st, by, "replaced"))
			st = st.Apply(rows[0])
		}
		return append(rows, d.started(st, open, by)), nil
	}, &after)
	return after.Broadcast, len(rows) > 0, err
}

// EndBroadcast ends the running broadcast when may, asked in the room's order,
// allows it; a nil may always does. It reports whether one ended.
func (d *Desk) EndBroadcast(ctx context.Context, room string, by User, reason string, may func(State) bool) (bool, error) {
	rows, err := d.Do(ctx, room, func(st State) ([]Row, error) {
		if !st.Live() || may != nil && !may(st) {
			return nil, nil
		}
		return []Row{d.ended(st, by, reason)}, nil
	}, nil)
	return len(rows) > 0, err
}

// Absent reports whether the running broadcast of a state has no link, and for
// how long. One that just started has had no chance to be linked yet, and a
// link whose row is in the log may be a moment from being open.
func (d *Desk) Absent(st State) (absent bool, since time.Duration) {
	linked, at := d.presence.Linked(st.Room)
	if linked {
		return false, 0
	}
	for _, other := range []time.Time{st.Broadcast.Logged, st.Link.At} {
		if at.Before(other) {
			at = other
		}
	}
	return true, d.opts.Now().Sub(at)
}

func (d *Desk) started(st State, open Opening, by User) Row {
	row := d.row(st, d.opts.NewID(), KindBroadcast, by)
	row.Broadcast = cmp.Or(open.ID, row.ID)
	row.Details.State, row.Details.Title = BroadcastStarted, open.Title
	if !open.StartedAt.IsZero() {
		at := open.StartedAt.UTC().Truncate(time.Millisecond)
		row.Details.StartedAt = &at
	}
	return row
}

func (d *Desk) ended(st State, by User, reason string) Row {
	row := d.row(st, d.opts.NewID(), KindBroadcast, by)
	row.Details.State, row.Staff.Reason = BroadcastEnded, reason
	return row
}
