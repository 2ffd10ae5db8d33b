package chat

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/netip"
	"time"
	"unicode/utf8"
)

// Desk is where lines are judged and logged. Each room's requests are judged
// one after another, each against the state that the ones before it leave, and
// go into the log as one batch while the next gathers; rooms do not wait for
// each other. Methods may be called concurrently.
type Desk struct {
	log      Log
	presence Presence
	opts     DeskOptions
	rooms    rooms
}

// DeskOptions are set once. NewDesk fills what is zero.
type DeskOptions struct {
	NewID     func() string    // makes row ids (ULIDs); required
	Now       func() time.Time // time.Now
	QueueFor  time.Duration    // how long lines are taken while the presenter has no link; 30 s
	Deadline  time.Duration    // of one request, waiting included; 5 s
	MaxQueued int              // requests that may wait per room; 1,000
	MaxRooms  int              // states kept in memory; 10,000, more only while all are in use

	// Directory, where there is one, has the say in who is live. Without it a
	// room is live from its started row to its ended row.
	Directory Directory
	// Limits, where there are any, bound how many lines are said.
	Limits Limits
	// OnStarted hears of every room in which a broadcast starts. It must not block.
	OnStarted func(room string)
	// OnUnlinked hears of every line that was logged with no link to hand it
	// to, and of every one refused for that. It must not block.
	OnUnlinked func(room string)
}

// retryAbsent is how long a refused sender waits while the presenter is gone:
// long enough for a page to reconnect, short enough to catch it when it has.
const retryAbsent = 5 * time.Second

// NewDesk joins the decision to a log and to what knows the presenters' links.
func NewDesk(log Log, presence Presence, opts DeskOptions) *Desk {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.OnStarted == nil {
		opts.OnStarted = func(string) {}
	}
	if opts.OnUnlinked == nil {
		opts.OnUnlinked = func(string) {}
	}
	opts.QueueFor = cmp.Or(opts.QueueFor, 30*time.Second)
	opts.Deadline = cmp.Or(opts.Deadline, 5*time.Second)
	opts.MaxQueued = cmp.Or(opts.MaxQueued, 1000)
	opts.MaxRooms = cmp.Or(opts.MaxRooms, 10_000)
	return &Desk{log: log, presence: presence, opts: opts, rooms: rooms{byName: map[string]*room{}, onAir: map[string]string{}}}
}

// Draft is a line that somebody wants to say.
type Draft struct {
	Room    string
	User    User
	Text    string // cleaned, see package text
	ReplyTo int64  // seq of the line it answers, or 0
	Key     string // Idempotency-Key, or ""

	// Address is where it comes from, for what is limited by that; the zero
	// Addr is not.
	Address netip.Addr
}

// Receipt says what became of a line that is in the log.
type Receipt struct {
	Row    Row
	Linked bool // false: it waits in the log for the presenter's link
}

// Send is the path of one line, from the draft to the durable row. It returns
// a *Refusal whenever the line was not logged, and one with LogOutcomeUnknown
// when that cannot be said yet; the same Key asks again.
func (d *Desk) Send(ctx context.Context, draft Draft) (_ Receipt, err error) {
	r := d.rooms.acquire(draft.Room, d.opts.MaxRooms)
	defer d.rooms.release(r)

	id := d.opts.NewID()
	req := d.request(nil)
	req.line, req.idem = &draft, id
	if draft.Key != "" || draft.ReplyTo != 0 { // the log is read before await's deadline holds
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.opts.Deadline)
		defer cancel()
	}
	if draft.Key != "" {
		req.idem = idemOf(draft.User.ID, draft.Key)
		if !r.claim(req.idem) {
			return Receipt{}, &Refusal{Code: IdempotencyInFlight, RetryAfter: time.Second}
		}
		defer d.unclaimOwn(r, req)
		defer func() { err = r.inDoubt(req.idem, err) }()
		first, found, err := d.log.ByIdem(ctx, draft.Room, req.idem)
		if err != nil { // a request before this one may have logged it
			return Receipt{}, refuseUnknown(err)
		}
		if found {
			return d.repeat(draft, first)
		}
	}
	word, err := d.word(ctx, draft.Room)
	if err != nil {
		return Receipt{}, err
	}
	reply, err := d.quote(ctx, draft)
	if err != nil {
		return Receipt{}, err
	}

	req.judge = func(st State) ([]Row, error) {
		rows, st, err := d.judgeLine(st, word)
		if err != nil {
			return nil, err
		}
		row := d.row(st, id, KindMessage, draft.User)
		row.Text, row.Idem, row.Details.Reply = draft.Text, req.idem, reply
		return append(rows, row), nil
	}
	rows, err := d.await(ctx, r, req)
	if dup := (*DuplicateError)(nil); errors.As(err, &dup) {
		return d.repeat(draft, dup.Row)
	}
	linked, _ := d.presence.Linked(draft.Room)
	if ref := (*Refusal)(nil); !linked && (err == nil || errors.As(err, &ref) && ref.Code == PresenterGone) {
		d.opts.OnUnlinked(draft.Room)
	}
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{Row: rows[len(rows)-1], Linked: linked}, nil
}

// MaySend says what Send would say to a line of that user in that room, as far
// as it does not depend on the text, and takes nothing.
func (d *Desk) MaySend(ctx context.Context, line Draft) error {
	word, err := d.word(ctx, line.Room)
	if err != nil {
		return err
	}
	st, err := d.State(ctx, line.Room)
	if err != nil {
		return err
	}
	if _, _, err := d.judgeLine(st, word); err != nil || d.opts.Limits == nil {
		return err
	}
	return d.opts.Limits.Check(&line, d.opts.Now())
}

// judgeLine judges a line against the room as it stands at the position that
// the line would follow, once the rows that the room server's word takes are
// there. What a line costs is taken after that, see charge.
func (d *Desk) judgeLine(st State, word *Word) ([]Row, State, error) {
	rows, st := d.onAir(st, word)
	return rows, st, d.mayBeSaid(st)
}

// mayBeSaid judges by the state alone.
func (d *Desk) mayBeSaid(st State) error {
	if !st.Live() {
		return Refuse(BroadcastEndedCode)
	}
	if absent, since := d.Absent(st); absent && since >= d.opts.QueueFor {
		return &Refusal{Code: PresenterGone, RetryAfter: retryAbsent}
	}
	return nil
}

// repeat answers a request that was made before: with the first answer, or,
// where it says something else now, with a refusal.
func (d *Desk) repeat(draft Draft, first Row) (Receipt, error) {
	var repliedTo int64
	if first.Details.Reply != nil {
		repliedTo = first.Details.Reply.Seq
	}
	if first.Text != draft.Text || repliedTo != draft.ReplyTo {
		return Receipt{}, Refuse(IdempotencyMismatch)
	}
	linked, _ := d.presence.Linked(draft.Room)
	return Receipt{Row: first, Linked: linked}, nil
}

// quote finds the line that the draft answers.
func (d *Desk) quote(ctx context.Context, draft Draft) (*Reply, error) {
	if draft.ReplyTo == 0 {
		return nil, nil
	}
	rows, err := d.log.After(ctx, draft.Room, draft.ReplyTo-1, 1)
	if err != nil {
		return nil, refuseLog(err)
	}
	if len(rows) == 0 || rows[0].Kind != KindMessage {
		return nil, Refuse(ReplyNotFound)
	}
	return &Reply{Seq: rows[0].Seq, Nickname: rows[0].User.Nickname, Text: excerpt(rows[0].Text)}, nil
}

func excerpt(s string) string {
	if utf8.RuneCountInString(s) <= MaxExcerptRunes {
		return s
	}
	return string([]rune(s)[:MaxExcerptRunes-1]) + "…"
}

// row fills what every row has.
func (d *Desk) row(st State, id string, kind Kind, by User) Row {
	row := Row{
		ID: id, Room: st.Room, Idem: id, Kind: kind, Broadcast: st.Broadcast.ID,
		At:      d.opts.Now().UTC().Truncate(time.Millisecond),
		User:    Author{ID: by.ID, Nickname: by.Nickname},
		Details: Details{Attrs: by.Attrs},
	}
	if role := by.RoleIn(st.Room); role != RoleViewer {
		row.Details.Role = role
	}
	return row
}

// idemOf scopes a key to its user; the room is the index's other half. 128 bits
// of SHA-256 keep two keys apart, and the stored value says nothing about them.
func idemOf(userID, key string) string {
	sum := sha256.Sum256([]byte(userID + "\x00" + key))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// refuseLog turns a failing log into what the sender should know.
func refuseLog(err error) error {
	if errors.Is(err, ErrOutcomeUnknown) {
		return refuseUnknown(err)
	}
	return &Refusal{Code: LogUnavailable, RetryAfter: 2 * time.Second, Cause: err}
}

func refuseUnknown(err error) error {
	return &Refusal{Code: LogOutcomeUnknown, RetryAfter: time.Second, Cause: err}
}

func isUnknown(err error) bool {
	var ref *Refusal
	return errors.As(err, &ref) && ref.Code == LogOutcomeUnknown
}
