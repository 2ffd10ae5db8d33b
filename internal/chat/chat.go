// Package chat is the words of Hanmadi and the one decision it exists for:
// may this line be said, and if so, where in its room's log does it stand.
//
// It imports nothing of ours and nothing of others. Everything above it (the
// stores, the sockets, the HTTP face) is joined to it by the contracts [Log]
// and [Presence], and by functions handed to [NewDesk].
package chat

import (
	"encoding/json"
	"regexp"
	"time"
)

// Bounds of what a room's log may hold. Sizes are in bytes unless the name
// says otherwise.
const (
	MaxAttrs        = 1 << 10 // a user's attrs, as JSON text
	MaxTitleRunes   = 200     // a broadcast's title, in code points
	MaxExcerptRunes = 80      // the quoted text of a reply, in code points
)

// Role says what a user is in one room.
type Role string

// The roles that exist so far. A user is the presenter of the room that bears
// their id, and a viewer everywhere else. Operator is the platform itself.
const (
	RoleViewer    Role = "viewer"
	RolePresenter Role = "presenter"
	RoleOperator  Role = "operator"
)

// User is whoever holds a valid token.
type User struct {
	ID       string          // see [ValidID]
	Nickname string          // 1–40 code points, already cleaned
	Role     Role            // RoleOperator or empty: roles in a room come from [User.RoleIn]
	Attrs    json.RawMessage // a JSON object of at most MaxAttrs bytes, or nil
	Expires  time.Time       // when the token ends; zero for the server itself and for whoever a gateway names
	Claimed  []string        // roles that the platform's token claims: a wish, see broadcast.presenters
}

// RoleIn is the user's role in a room.
func (u User) RoleIn(room string) Role {
	switch {
	case u.Role == RoleOperator:
		return RoleOperator
	case u.ID == room:
		return RolePresenter
	default:
		return RoleViewer
	}
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// ValidID reports whether s can name a user, a room or a broadcast:
// [A-Za-z0-9][A-Za-z0-9_-]{0,63}.
func ValidID(s string) bool { return idPattern.MatchString(s) }

// Kind is what a row of the log records.
type Kind string

// The kinds of rows so far.
const (
	KindMessage   Kind = "message"   // somebody said a line
	KindBroadcast Kind = "broadcast" // a broadcast started or ended
	KindLink      Kind = "link"      // a presenter's link took the room; no public face
	KindHidden    Kind = "hidden"    // only as a public face: a row with nothing to show
)

// The states a row of KindBroadcast announces.
const (
	BroadcastStarted = "started"
	BroadcastEnded   = "ended"
)

// Row is a thing that happened in a room, as the log keeps it.
type Row struct {
	ID        string    // ULID, made where the request came in
	Room      string    // the presenter's user id
	Seq       int64     // 1, 2, 3 … in its room; set by the log
	At        time.Time // UTC, whole milliseconds; never runs backwards in a room; the log raises it where needed
	Broadcast string    // the broadcast it belongs to, "" outside of one
	Kind      Kind
	User      Author
	Text      string // cleaned; only messages
	Idem      string // unique in its room: hash of user and Idempotency-Key, else the ID
	Details   Details
	Staff     StaffDetails
}

// Author is the user of a row as they were when it was logged.
type Author struct {
	ID       string
	Nickname string
}

// Details are what only some rows have and everybody may see.
type Details struct {
	Role  Role            `json:"role,omitempty"`  // of the author, where it is not RoleViewer
	Attrs json.RawMessage `json:"attrs,omitempty"` // of the author
	Reply *Reply          `json:"reply,omitempty"`
	State string          `json:"state,omitempty"` // KindBroadcast: started, ended
	Title string          `json:"title,omitempty"` // KindBroadcast

	// StartedAt is when the platform says that the broadcast started, where
	// that is not the row's own time.
	StartedAt *time.Time `json:"started_at,omitempty"`
}

// IsZero reports that there is nothing to store.
func (d Details) IsZero() bool {
	return d.Role == "" && len(d.Attrs) == 0 && d.Reply == nil && d.State == "" && d.Title == "" && d.StartedAt == nil
}

// StaffDetails are what only staff may see.
type StaffDetails struct {
	Session string `json:"session,omitempty"` // KindLink: the session that took the room
	Reason  string `json:"reason,omitempty"`  // KindBroadcast: why it ended
}

// Reply quotes the line that a line answers.
type Reply struct {
	Seq      int64  `json:"seq"`
	Nickname string `json:"nickname"`
	Text     string `json:"text"` // at most MaxExcerptRunes code points
}

// Event is the public face of a row: what viewers may see of it.
// Optional members are absent, never null.
type Event struct {
	Seq       int64      `json:"seq"`
	ID        string     `json:"id,omitempty"`
	At        string     `json:"at,omitempty"` // RFC 3339, UTC, three decimals
	Broadcast string     `json:"broadcast,omitempty"`
	Kind      Kind       `json:"kind"`
	User      *EventUser `json:"user,omitempty"`
	Text      string     `json:"text,omitempty"`
	Reply     *Reply     `json:"reply,omitempty"`
	State     string     `json:"state,omitempty"`
	Title     string     `json:"title,omitempty"`
}

// EventUser is the author of an event.
type EventUser struct {
	ID       string          `json:"id"`
	Nickname string          `json:"nickname"`
	Role     Role            `json:"role"`
	Attrs    json.RawMessage `json:"attrs,omitempty"`
}

// TimeFormat is how times are written everywhere outside: RFC 3339 in UTC
// with three decimals.
const TimeFormat = "2006-01-02T15:04:05.000Z07:00"

// Event returns the row's public face. It names the kinds that have one; every
// other kind, also one that a newer version wrote, keeps its place as hidden.
func (r Row) Event() Event {
	e := Event{Seq: r.Seq, ID: r.ID, At: r.At.UTC().Format(TimeFormat), Broadcast: r.Broadcast, Kind: r.Kind}
	switch r.Kind {
	case KindMessage:
		role := r.Details.Role
		if role == "" {
			role = RoleViewer
		}
		e.User = &EventUser{ID: r.User.ID, Nickname: r.User.Nickname, Role: role, Attrs: r.Details.Attrs}
		e.Text, e.Reply = r.Text, r.Details.Reply
	case KindBroadcast:
		e.State, e.Title = r.Details.State, r.Details.Title
	default:
		return Event{Seq: r.Seq, Kind: KindHidden}
	}
	return e
}
