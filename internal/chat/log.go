package chat

import (
	"context"
	"errors"
	"time"
)

// Log is the truth: one ordered, durable list of rows per room. Every method
// may be called concurrently. Implementations pass the suite in
// chatlog/logtest, which is this contract as tests.
type Log interface {
	// ID names this log. It changes when the log is restored from a backup, so
	// that clients whose cursors belong to the lost rows start over.
	ID() string

	// Append adds rows to a room directly after position after, all of them or
	// none, and returns them as stored: Seq counts up from after+1, and At is
	// raised where it would run backwards. When it returns without error the
	// rows survive a kill and a power loss.
	//
	// Errors:
	//   - *BehindError: rows stand after that position already; nothing was added.
	//   - *DuplicateError: a row with that Idem is logged already; nothing was added.
	//   - ErrLogUnavailable (wrapped): surely nothing was added.
	//   - ErrOutcomeUnknown (wrapped): the rows may or may not be there. The
	//     caller forgets what it knows of the room and reads it anew.
	//
	// Callers keep one append in flight per room.
	Append(ctx context.Context, room string, after int64, rows []Row) ([]Row, error)

	// After returns the rows that follow position after, oldest first, at most
	// limit of them, with no gap. It may return fewer than there are; none means
	// that nothing follows.
	After(ctx context.Context, room string, after int64, limit int) ([]Row, error)

	// Before returns the rows directly before position before, oldest first, at
	// most limit of them, with no gap. A before of 0 means the end.
	Before(ctx context.Context, room string, before int64, limit int) ([]Row, error)

	// ByIdem returns the row of the room with that Idem, and whether there is one.
	ByIdem(ctx context.Context, room, idem string) (Row, bool, error)

	// Marks returns the rows after position after that are not messages, oldest
	// first, and the room's last row of any kind (zero when the room is empty),
	// from one moment: what a fold needs.
	Marks(ctx context.Context, room string, after int64) (marks []Row, last Row, err error)

	// Heads returns the last seq of each of the rooms, asking the store itself.
	// A room without rows is absent.
	Heads(ctx context.Context, rooms []string) (map[string]int64, error)

	// Live returns the rooms whose last row of KindBroadcast says started.
	Live(ctx context.Context) ([]string, error)
}

// The ways an append can fail without saying what stands in the log instead.
var (
	ErrLogUnavailable = errors.New("log unavailable")
	ErrOutcomeUnknown = errors.New("log outcome unknown")
)

// BehindError says that the caller's position is not the room's last. Rows are
// the ones it lacks, oldest first, possibly only the first of them.
type BehindError struct{ Rows []Row }

func (e *BehindError) Error() string { return "log: other rows stand after that position" }

// DuplicateError says that a row with the same Idem is logged already.
type DuplicateError struct{ Row Row }

func (e *DuplicateError) Error() string { return "log: a row with that idem is logged already" }

// Presence says where a room's presenter is. Methods may be called
// concurrently and never block.
type Presence interface {
	// Linked reports whether the presenter has a link, and if not, since when
	// it has been gone: zero when that is not known, as after a start.
	Linked(room string) (linked bool, goneSince time.Time)

	// Nudge tells the room's sessions that the log has grown to head. It is a
	// hint and may be lost.
	Nudge(room string, head int64)
}

// Limits says how many lines may be said. Methods may be called concurrently
// and never block.
type Limits interface {
	// Take takes what a line costs, or takes nothing and returns a *Refusal
	// that says when to try again.
	Take(line *Draft, now time.Time) error

	// Return gives back what Take took for a line that was not logged.
	Return(line *Draft, now time.Time)

	// Check says what Take would, and takes nothing.
	Check(line *Draft, now time.Time) error
}

// Word is what a room server says of a presenter.
type Word struct {
	Live      bool
	Broadcast string    // the platform's id of the broadcast; "" where it gives none
	At        time.Time // when it was said; zero: never
}

// Directory is the platform's room server, which knows who is live. Methods may
// be called concurrently.
type Directory interface {
	// Live asks for a presenter. On error the word is the last one that is
	// known, with the time it was said.
	Live(ctx context.Context, room string) (Word, error)
}
