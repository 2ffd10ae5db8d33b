package chatlog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// maxGroup bounds the rows of one commit, so that a burst delays nobody long.
const maxGroup = 2000

// maxHeads bounds the remembered ends of rooms; past it they are read again.
const maxHeads = 50_000

// head is where a room ends.
type head struct {
	seq int64
	at  int64 // ms
}

// appending is one Append on its way. stored and err are set before done closes.
type appending struct {
	room   string
	after  int64
	rows   []chat.Row
	probe  bool // writes nothing that lasts, see Check
	done   chan struct{}
	stored []chat.Row
	err    error
}

type writeStmts struct {
	begin, commit, rollback, insert, head, undo, idem, after, probe *sql.Stmt
}

const (
	columns = `seq, id, room_idx, kind, user_idx, nickname, message, time, idem, data, staff`

	// byIdem finds a row by its idem, which is its id where the column is null.
	byIdem = `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ?1 AND idem = ?2
		UNION ALL SELECT ` + columns + ` FROM chat_log WHERE id = ?2 AND presenter_idx = ?1 AND idem IS NULL LIMIT 1`
)

func (w *writeStmts) prepare(ctx context.Context, conn *sql.Conn) error {
	return prepareAll(ctx, conn, map[**sql.Stmt]string{
		&w.begin:    `BEGIN IMMEDIATE`,
		&w.commit:   `COMMIT`,
		&w.rollback: `ROLLBACK`,
		&w.insert: `INSERT INTO chat_log (presenter_idx, ` + columns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT DO NOTHING`,
		&w.head:  `SELECT seq, time FROM chat_log WHERE presenter_idx = ? ORDER BY seq DESC LIMIT 1`,
		&w.undo:  `DELETE FROM chat_log WHERE presenter_idx = ? AND seq > ?`,
		&w.idem:  byIdem,
		&w.after: `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? AND seq > ? ORDER BY seq LIMIT ?`,
		&w.probe: `INSERT INTO meta VALUES ('probe', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
	})
}

type preparer interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func prepareAll(ctx context.Context, p preparer, queries map[**sql.Stmt]string) error {
	for stmt, query := range queries {
		var err error
		if *stmt, err = p.PrepareContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// Append implements [chat.Log]. When ctx ends while the rows still wait they
// are taken back; once their commit has begun the outcome is unknown.
func (s *SQLite) Append(ctx context.Context, room string, after int64, rows []chat.Row) ([]chat.Row, error) {
	if s.short.Load() {
		return nil, fmt.Errorf("%w: %w", chat.ErrLogUnavailable, errNoSpace)
	}
	return s.submit(ctx, &appending{room: room, after: after, rows: slices.Clone(rows)})
}

func (s *SQLite) submit(ctx context.Context, a *appending) ([]chat.Row, error) {
	a.done = make(chan struct{})
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: closed", chat.ErrLogUnavailable)
	}
	s.waiting = append(s.waiting, a)
	s.mu.Unlock()
	s.nudge()
	select {
	case <-a.done:
		return a.stored, a.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.waiting, a)
	if i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 {
		return nil, fmt.Errorf("%w: %w", chat.ErrLogUnavailable, ctx.Err())
	}
	return nil, fmt.Errorf("%w: %w", chat.ErrOutcomeUnknown, ctx.Err())
}

func (s *SQLite) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// writeLoop is the one goroutine that writes.
func (s *SQLite) writeLoop() {
	defer close(s.done)
	var last int // appends of the group before
	var ended time.Time
	for range s.wake {
		for {
			s.fold()
			if last >= crowd && time.Since(ended) < crowdedFor {
				time.Sleep(gatherTime)
			}
			group, closed := s.takeGroup()
			if len(group) == 0 {
				if closed {
					return
				}
				break
			}
			last = len(group)
			began := time.Now()
			s.began.Store(&began)
			s.commitGroup(group)
			s.began.Store(nil)
			ended = time.Now()
			for _, a := range group {
				close(a.done)
			}
		}
	}
}

// A commit costs nearly the same for one append as for twenty, and where the
// processors are busy the next ones trickle in while their senders hear of the
// last group. So a group that follows a crowd closely waits for company: groups
// of 5 became 10 (32 senders, 16 rooms) and everybody was answered sooner. A lone
// line waits for nobody.
const (
	crowd      = 4                    // appends in a group
	crowdedFor = 5 * time.Millisecond // after its end
	gatherTime = time.Millisecond
)

func (s *SQLite) takeGroup() (group []*appending, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, rows := 0, 0
	for n < len(s.waiting) && (n == 0 || rows+len(s.waiting[n].rows) <= maxGroup) {
		rows += len(s.waiting[n].rows)
		n++
	}
	group = slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	return group, s.closed
}

// commitGroup writes the group in one transaction. Where that fails before the
// commit, each append is tried alone, so that one that cannot be written does
// not take the others with it.
func (s *SQLite) commitGroup(group []*appending) {
	start := time.Now()
	err := s.transact(group)
	if err != nil && len(group) > 1 && !errors.Is(err, chat.ErrOutcomeUnknown) {
		for _, a := range group {
			s.note(s.transact([]*appending{a}))
		}
	} else {
		s.note(err)
	}
	rows := 0
	for _, a := range group {
		rows += len(a.stored)
	}
	s.metrics.committed(rows, time.Since(start))
}

// note remembers how the last write went, for Check.
func (s *SQLite) note(err error) {
	if err == nil {
		s.failing.Store(nil)
		return
	}
	s.failing.Store(&err)
	s.metrics.failed(err)
}

// transact gives every append of the group its stored rows or its error, and
// returns an error when the transaction as a whole failed.
func (s *SQLite) transact(group []*appending) error {
	ctx := context.Background() // nothing may interrupt a statement: the outcome must be known
	err := s.writeAll(ctx, group)
	if err == nil {
		if _, err = s.write.commit.ExecContext(ctx); err != nil && !fullDisk(err) {
			err = fmt.Errorf("%w: %w", chat.ErrOutcomeUnknown, err)
		}
	}
	if err == nil {
		return nil
	}
	_, _ = s.write.rollback.ExecContext(ctx)
	clear(s.heads)
	if !errors.Is(err, chat.ErrOutcomeUnknown) {
		err = fmt.Errorf("%w: %w", chat.ErrLogUnavailable, err)
	}
	for _, a := range group {
		a.stored, a.err = nil, err
	}
	return err
}

// fullDisk tells the one failure of a commit after which nothing of it is in
// the file for certain: its last frame did not fit.
func fullDisk(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

func (s *SQLite) writeAll(ctx context.Context, group []*appending) error {
	if _, err := s.write.begin.ExecContext(ctx); err != nil {
		return err
	}
	for _, a := range group {
		a.stored, a.err = nil, nil
		if err := s.writeOne(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// writeOne adds the rows of one append, or sets its own error and adds none.
func (s *SQLite) writeOne(ctx context.Context, a *appending) error {
	if a.probe {
		_, err := s.write.probe.ExecContext(ctx, time.Now().UTC().Format(chat.TimeFormat))
		return err
	}
	h, err := s.head(ctx, a.room)
	if err != nil {
		return err
	}
	if h.seq != a.after {
		return s.behind(ctx, a)
	}
	stored := slices.Clone(a.rows)
	for i := range stored {
		row := &stored[i]
		row.Room, row.Seq = a.room, h.seq+1
		row.At = time.UnixMilli(max(ms(row.At), h.at)).UTC()
		added, err := s.insert(ctx, row)
		if err != nil {
			return err
		}
		if !added {
			return s.duplicate(ctx, a, row.Idem)
		}
		h = head{row.Seq, ms(row.At)}
	}
	s.heads[a.room] = h
	a.stored = stored
	return nil
}

func (s *SQLite) head(ctx context.Context, room string) (head, error) {
	if h, ok := s.heads[room]; ok {
		return h, nil
	}
	if len(s.heads) >= maxHeads {
		clear(s.heads)
	}
	var h head
	err := s.write.head.QueryRowContext(ctx, room).Scan(&h.seq, &h.at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return head{}, err
	}
	s.heads[room] = h
	return h, nil
}

func (s *SQLite) insert(ctx context.Context, r *chat.Row) (added bool, err error) {
	data, err := details(r.Details, r.Details.IsZero())
	if err != nil {
		return false, err
	}
	staff, err := details(r.Staff, r.Staff == chat.StaffDetails{})
	if err != nil {
		return false, err
	}
	var idem any // null where it is the id
	if r.Idem != r.ID {
		idem = r.Idem
	}
	res, err := s.write.insert.ExecContext(ctx, r.Room, r.Seq, r.ID, r.Broadcast, string(r.Kind),
		r.User.ID, r.User.Nickname, r.Text, ms(r.At), idem, data, staff)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// details writes the JSON of a column that most rows leave empty.
func details(v any, empty bool) (any, error) {
	if empty {
		return nil, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// behind tells the caller what stands after its position.
func (s *SQLite) behind(ctx context.Context, a *appending) error {
	rows, err := queryRows(ctx, s.write.after, a.room, a.room, a.after, 1000)
	a.err = &chat.BehindError{Rows: rows}
	return err
}

// duplicate takes back what the append has added so far; only its own rows can
// stand after its position, as nobody else writes in this transaction's room.
func (s *SQLite) duplicate(ctx context.Context, a *appending, idem string) error {
	if _, err := s.write.undo.ExecContext(ctx, a.room, a.after); err != nil {
		return err
	}
	delete(s.heads, a.room)
	rows, err := queryRows(ctx, s.write.idem, a.room, a.room, idem)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("two rows of one append to room %s have the same idem", a.room)
	}
	a.err = &chat.DuplicateError{Row: rows[0]}
	return nil
}
