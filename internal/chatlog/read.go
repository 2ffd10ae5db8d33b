package chatlog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

type readStmts struct {
	after, before, idem, marks, last, heads, live *sql.Stmt
}

func (r *readStmts) prepare(ctx context.Context, db *sql.DB) error {
	return prepareAll(ctx, db, map[**sql.Stmt]string{
		&r.after:  `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? AND seq > ? ORDER BY seq LIMIT ?`,
		&r.before: `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? AND seq < ? ORDER BY seq DESC LIMIT ?`,
		&r.idem:   byIdem,
		&r.marks: `SELECT ` + columns + ` FROM chat_log INDEXED BY chat_log_mark
			WHERE presenter_idx = ? AND seq > ? AND seq <= ? AND kind <> 'message' ORDER BY seq`,
		&r.last: `SELECT ` + columns + ` FROM chat_log WHERE presenter_idx = ? ORDER BY seq DESC LIMIT 1`,
		// One seek per room: grouping over IN (…) would walk every row of them.
		&r.heads: `SELECT value, coalesce((SELECT max(seq) FROM chat_log WHERE presenter_idx = value), 0) FROM json_each(?)`,
		// SQLite takes the other columns from the row that has the max.
		&r.live: `SELECT presenter_idx FROM (
				SELECT presenter_idx, data, max(seq) FROM chat_log INDEXED BY chat_log_mark
				WHERE kind <> 'message' AND kind = 'broadcast' GROUP BY presenter_idx)
			WHERE json_extract(data, '$.state') = 'started' ORDER BY presenter_idx`,
	})
}

// After implements [chat.Log].
func (s *SQLite) After(ctx context.Context, room string, after int64, limit int) ([]chat.Row, error) {
	return queryRows(ctx, s.read.after, room, room, after, limit)
}

// Before implements [chat.Log].
func (s *SQLite) Before(ctx context.Context, room string, before int64, limit int) ([]chat.Row, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := queryRows(ctx, s.read.before, room, room, before, limit)
	slices.Reverse(rows)
	return rows, err
}

// ByIdem implements [chat.Log].
func (s *SQLite) ByIdem(ctx context.Context, room, idem string) (chat.Row, bool, error) {
	rows, err := queryRows(ctx, s.read.idem, room, room, idem)
	if err != nil || len(rows) == 0 {
		return chat.Row{}, false, err
	}
	return rows[0], true, nil
}

// Marks implements [chat.Log]. The marks stop at the last row that was read
// first, which makes the two reads one moment.
func (s *SQLite) Marks(ctx context.Context, room string, after int64) ([]chat.Row, chat.Row, error) {
	last, err := queryRows(ctx, s.read.last, room, room)
	if err != nil || len(last) == 0 {
		return nil, chat.Row{}, err
	}
	marks, err := queryRows(ctx, s.read.marks, room, room, after, last[0].Seq)
	return marks, last[0], err
}

// Heads implements [chat.Log].
func (s *SQLite) Heads(ctx context.Context, rooms []string) (map[string]int64, error) {
	heads := make(map[string]int64, len(rooms))
	list, err := json.Marshal(append([]string{}, rooms...)) // never null, which would be a row
	if err != nil {
		return nil, err
	}
	err = each(ctx, s.read.heads, func(scan func(...any) error) error {
		var room string
		var seq int64
		if err := scan(&room, &seq); err != nil {
			return err
		}
		if seq > 0 {
			heads[room] = seq
		}
		return nil
	}, string(list))
	return heads, err
}

// Live implements [chat.Log].
func (s *SQLite) Live(ctx context.Context) ([]string, error) {
	var rooms []string
	err := each(ctx, s.read.live, func(scan func(...any) error) error {
		var room string
		err := scan(&room)
		rooms = append(rooms, room)
		return err
	})
	return rooms, err
}

func each(ctx context.Context, stmt *sql.Stmt, row func(scan func(...any) error) error, args ...any) error {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func queryRows(ctx context.Context, stmt *sql.Stmt, room string, args ...any) ([]chat.Row, error) {
	var rows []chat.Row
	err := each(ctx, stmt, func(scan func(...any) error) error {
		r := chat.Row{Room: room}
		var kind string
		var at int64
		var idem, data, staff sql.NullString
		err := scan(&r.Seq, &r.ID, &r.Broadcast, &kind, &r.User.ID, &r.User.Nickname, &r.Text, &at, &idem, &data, &staff)
		if err != nil {
			return err
		}
		if r.Idem = r.ID; idem.Valid {
			r.Idem = idem.String
		}
		r.Kind, r.At = chat.Kind(kind), time.UnixMilli(at).UTC()
		if data.Valid {
			err = json.Unmarshal([]byte(data.String), &r.Details)
		}
		if err == nil && staff.Valid {
			err = json.Unmarshal([]byte(staff.String), &r.Staff)
		}
		if err != nil {
			return fmt.Errorf("room %s seq %d: %w", room, r.Seq, err)
		}
		rows = append(rows, r)
		return nil
	}, args...)
	return rows, err
}
