package chat

import "time"

// State is the fold of a room's rows: what the next judgement depends on.
// It is a value; [State.Apply] returns the next one and leaves the receiver
// as it was, so that a batch can be judged ahead and thrown away.
type State struct {
	Room      string
	Seq       int64     // applied position: the last row folded
	At        time.Time // of that row
	Broadcast Broadcast // the running one; ID is "" when there is none
	Last      string    // id of the one that ended last
	Ended     time.Time // when that was
	Link      LinkHold
}

// Broadcast is one live session of a presenter.
type Broadcast struct {
	ID      string
	Title   string
	Started time.Time // as the platform says, else Logged
	Logged  time.Time // of its started row
	Seq     int64     // of its started row
}

// LinkHold says which link holds the room: the highest row of KindLink wins,
// so that two nodes never disagree on which is newer.
type LinkHold struct {
	Session string
	Seq     int64
	At      time.Time
}

// Live reports whether a broadcast is running.
func (s State) Live() bool { return s.Broadcast.ID != "" }

// Running is the first row of the running broadcast; without one it is the row
// that comes next.
func (s State) Running() int64 {
	if s.Live() {
		return s.Broadcast.Seq
	}
	return s.Seq + 1
}

// Apply folds the row that follows. Rows must come in order of seq; lines move
// the position and nothing else, which is what lets a fold skip them.
func (s State) Apply(r Row) State {
	s.Seq, s.At = r.Seq, r.At
	switch r.Kind {
	case KindBroadcast:
		if r.Details.State == BroadcastStarted {
			s.Broadcast = Broadcast{ID: r.Broadcast, Title: r.Details.Title, Logged: r.At, Started: r.At, Seq: r.Seq}
			if at := r.Details.StartedAt; at != nil {
				s.Broadcast.Started = *at
			}
		} else {
			s.Last, s.Ended = s.Broadcast.ID, r.At
			s.Broadcast = Broadcast{}
		}
	case KindLink:
		s.Link = LinkHold{Session: r.Staff.Session, Seq: r.Seq, At: r.At}
	}
	return s
}
