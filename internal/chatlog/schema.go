package chatlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// applicationID marks a file as a Hanmadi log ("HnMd"), so that a tool never
// takes another program's database for one.
const applicationID = 0x486E4D64

// migrations bring a file from version i to i+1. They are never edited once
// released, only added to.
var migrations = []string{
	// Columns carry the platform's own names. Rows lie in the order in which they
	// came, with an index for their places in the rooms. Clustering them by
	// (presenter_idx, seq) was tried: every room then grows in the middle of one
	// tree, whose pages are split and rewritten all the time, and a row cost 77 µs
	// of CPU in the place of 46 (groups of 8 rows from 16 rooms, fsync included).
	// idem is null for lines without a key, so that their index entry need not be
	// written: 106 µs with it. marks is small: it leaves out the lines, which are
	// nearly everything, and is what lets a room of a million lines be folded
	// without reading them.
	`CREATE TABLE meta (
		key   TEXT NOT NULL PRIMARY KEY,
		value TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE TABLE chat_log (
		position      INTEGER NOT NULL PRIMARY KEY,
		presenter_idx TEXT    NOT NULL,
		seq           INTEGER NOT NULL CHECK (seq > 0),
		id            TEXT    NOT NULL,
		room_idx      TEXT    NOT NULL,
		kind          TEXT    NOT NULL,
		user_idx      TEXT    NOT NULL,
		nickname      TEXT    NOT NULL,
		message       TEXT    NOT NULL,
		time          INTEGER NOT NULL,
		minute        INTEGER GENERATED ALWAYS AS (time / 60000) VIRTUAL,
		idem          TEXT,
		data          TEXT,
		staff         TEXT
	) STRICT;
	CREATE UNIQUE INDEX chat_log_seq  ON chat_log (presenter_idx, seq);
	CREATE UNIQUE INDEX chat_log_id   ON chat_log (id);
	CREATE UNIQUE INDEX chat_log_idem ON chat_log (presenter_idx, idem) WHERE idem IS NOT NULL;
	CREATE INDEX        chat_log_mark ON chat_log (presenter_idx, seq) WHERE kind <> 'message';`,
}

// checkSchema says whether a file that cannot be migrated here can be read.
func checkSchema(ctx context.Context, db *sql.DB) error {
	var app, version int
	if err := db.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version)`).Scan(&app, &version); err != nil {
		return err
	}
	switch {
	case app != applicationID:
		return errors.New("not a log of hanmadi")
	case version > len(migrations):
		return fmt.Errorf("schema version %d; this program knows %d: use a newer hanmadi", version, len(migrations))
	case version < len(migrations):
		return fmt.Errorf("schema version %d; this program reads %d: run its server on the log once", version, len(migrations))
	}
	return nil
}

// migrate brings the file to the newest version, each step in a transaction of
// its own, and refuses files that are not ours or come from a newer program.
func migrate(ctx context.Context, conn *sql.Conn, newID func() string) error {
	var app, version, tables int
	if err := conn.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`).Scan(&app, &version, &tables); err != nil {
		return err
	}
	if app != applicationID && (app != 0 || tables != 0) {
		return fmt.Errorf("this is a database of another program (application_id %#x)", app)
	}
	if version > len(migrations) {
		return fmt.Errorf("this log has schema version %d; this program knows %d: use a newer hanmadi", version, len(migrations))
	}
	for v := version; v < len(migrations); v++ {
		step := fmt.Sprintf("BEGIN IMMEDIATE; %s; PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", migrations[v], applicationID, v+1)
		if _, err := conn.ExecContext(ctx, step); err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK")
			return fmt.Errorf("schema version %d: %w", v+1, err)
		}
	}
	_, err := conn.ExecContext(ctx, `INSERT INTO meta VALUES ('log_id', ?) ON CONFLICT DO NOTHING`, newID())
	return err
}
