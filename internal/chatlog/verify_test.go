package chatlog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// logOf makes a closed log of two rooms: 7 with so many rows, a second apart,
// and 8 with two.
func logOf(t *testing.T, rows int) (path string) {
	t.Helper()
	path = file(t)
	s, err := OpenSQLite(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for room, n := range map[string]int{"7": rows, "8": 2} {
		all := make([]chat.Row, n)
		for i := range all {
			all[i] = logtest.Line(fmt.Sprintf("%s-%05d", room, i), fmt.Sprintf("%d번째 줄", i))
			all[i].At = all[i].At.Add(time.Duration(i) * time.Second)
			all[i].Details.Role = chat.RolePresenter
		}
		for at := 0; at < n; at += 500 {
			if _, err := s.Append(t.Context(), room, int64(at), all[at:min(n, at+500)]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func openReader(t *testing.T, path string) *Reader {
	t.Helper()
	r, err := OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// verified gives the rooms of a log and everything that is wrong with it.
func verified(t *testing.T, path string) (rooms map[string]RoomReport, problems string) {
	t.Helper()
	rooms = map[string]RoomReport{}
	var all []string
	found, err := openReader(t, path).Verify(t.Context(), func(r RoomReport) error {
		rooms[r.Room] = r
		all = append(all, r.Problems...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rooms, strings.Join(append(all, found...), "\n")
}

func TestVerifyFindsNothingWrong(t *testing.T) {
	path := logOf(t, verifyStep+5)
	rooms, problems := verified(t, path)
	if problems != "" {
		t.Errorf("a good log: %s", problems)
	}
	if r := rooms["7"]; len(rooms) != 2 || r.Rows != verifyStep+5 || r.Head != verifyStep+5 || len(r.Hash) != 64 || r.Hash == rooms["8"].Hash {
		t.Errorf("got %+v", rooms)
	}
}

// Each is one way in which a file can come to be wrong, done to a good one.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	const last = verifyStep + 5
	small, large := logOf(t, 12), logOf(t, last)
	for name, c := range map[string]struct {
		harm, want string
		long       bool // in a room of more rows than are read at once
	}{
		"a row is missing":          {`DELETE FROM chat_log WHERE presenter_idx = '7' AND seq = 3`, "gap: seq 3 is missing", false},
		"the first is missing":      {`DELETE FROM chat_log WHERE presenter_idx = '7' AND seq = 1`, "gap: seq 1 is missing", false},
		"a whole page is missing":   {`DELETE FROM chat_log WHERE presenter_idx = '7' AND seq BETWEEN 2 AND 1003`, "gap: seq 2 to 1003 are missing", true},
		"two rows are swapped":      {`UPDATE chat_log SET seq = 99999 WHERE presenter_idx = '7' AND seq = 3; UPDATE chat_log SET seq = 3 WHERE presenter_idx = '7' AND seq = 5; UPDATE chat_log SET seq = 5 WHERE seq = 99999`, "time: seq 4 is earlier than seq 3", false},
		"a time runs backwards":     {`UPDATE chat_log SET time = time - 60000 WHERE presenter_idx = '7' AND seq = 500`, "time: seq 500 is earlier than seq 499", true},
		"a row stands there twice":  {doubled + `INSERT INTO chat_log SELECT presenter_idx, seq, id || 'x', room_idx, kind, user_idx, nickname, message, time, idem || 'x', data, staff FROM chat_log WHERE presenter_idx = '7' AND seq = 3`, "double: seq 3 stands there twice", false},
		"twice at the edge":         {doubled + `INSERT INTO chat_log SELECT presenter_idx, seq, id || 'x', room_idx, kind, user_idx, nickname, message, time, idem || 'x', data, staff FROM chat_log WHERE presenter_idx = '7' AND seq = 1000`, "double: seq 1000 stands there twice", true},
		"an id stands there twice":  {`DROP INDEX chat_log_id; UPDATE chat_log SET id = '7-00001' WHERE seq = 3`, "schema: index chat_log_id", false},
		"a watcher is gone":         {`DROP INDEX chat_log_idem`, "schema: index chat_log_idem is missing", false},
		"a trigger that lies":       {`CREATE TRIGGER t AFTER INSERT ON chat_log BEGIN DELETE FROM chat_log WHERE seq = 1; END`, "schema: trigger t is not of this program", false},
		"details cannot be read":    {`UPDATE chat_log SET data = '{"role":' WHERE presenter_idx = '7' AND seq = 9`, "unreadable: seq 9", false},
		"an index lost a row":       {`PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX chat_log_id ON chat_log (id) WHERE seq <> 3' WHERE name = 'chat_log_id'; PRAGMA writable_schema = RESET; UPDATE chat_log SET id = 'other' WHERE presenter_idx = '7' AND seq = 3; PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX chat_log_id   ON chat_log (id)' WHERE name = 'chat_log_id'; PRAGMA writable_schema = RESET`, "file: ", false},
		"many rows are wrong":       {`DELETE FROM chat_log WHERE presenter_idx = '7' AND seq % 2 = 0`, "more", true},
		"the times of all but last": {fmt.Sprintf(`UPDATE chat_log SET time = time + 9999999 WHERE presenter_idx = '7' AND seq < %d`, last), fmt.Sprintf("time: seq %d is earlier", last), true},
	} {
		t.Run(name, func(t *testing.T) {
			path, good := file(t), small
			if c.long {
				good = large
			}
			copyFile(t, good, path)
			exec(t, path, c.harm)
			_, problems := verified(t, path)
			if !strings.Contains(problems, c.want) {
				t.Errorf("found %q, want %q", problems, c.want)
			}
			if n := strings.Count(problems, "\n"); n > 2*maxProblems+1 {
				t.Errorf("%d problems are listed one by one", n)
			}
		})
	}
}

// doubled makes the table one that takes a seq twice.
var doubled = `CREATE TABLE loose (presenter_idx TEXT, seq INTEGER, id TEXT, room_idx TEXT, kind TEXT, user_idx TEXT, nickname TEXT, message TEXT,
		time INTEGER, idem TEXT, data TEXT, staff TEXT, PRIMARY KEY (presenter_idx, seq, id)) WITHOUT ROWID;
	INSERT INTO loose SELECT presenter_idx, seq, id, room_idx, kind, user_idx, nickname, message, time, idem, data, staff FROM chat_log;
	DROP TABLE chat_log; ALTER TABLE loose RENAME TO chat_log;
	CREATE INDEX chat_log_mark ON chat_log (presenter_idx, seq) WHERE kind <> 'message';`

// A change that breaks no rule is one that only the hash can show, in whatever
// column it is.
func TestVerifyHashCoversEveryColumn(t *testing.T) {
	path := logOf(t, 3)
	before, _ := verified(t, path)
	seen := map[string]string{before["7"].Hash: "the log as it was"}
	for _, set := range []string{"id = 'z'", "room_idx = 'z'", "kind = 'z'", "user_idx = 'z'", "nickname = 'z'", "message = 'z'", "time = time + 1",
		"idem = 'z'", `data = '{"title":"z"}'`, "data = NULL", "staff = '{}'", "nickname = '', message = nickname || message"} {
		copied := filepath.Join(t.TempDir(), "copy.db")
		copyFile(t, path, copied)
		exec(t, copied, `UPDATE chat_log SET `+set+` WHERE presenter_idx = '7' AND seq = 3`)
		rooms, problems := verified(t, copied)
		if problems != "" {
			t.Errorf("%s: %s", set, problems)
		}
		if as, twice := seen[rooms["7"].Hash]; twice {
			t.Errorf("%s: the hash is that of %s", set, as)
		}
		seen[rooms["7"].Hash] = set
		if rooms["8"].Hash != before["8"].Hash {
			t.Errorf("%s: the hash of the other room changed", set)
		}
	}
}

// The canonical form is a promise to other programs: this hash was computed by
// hand from its description.
func TestVerifyHashIsTheDocumentedOne(t *testing.T) {
	path := logOf(t, 1)
	exec(t, path, `UPDATE chat_log SET data = NULL WHERE presenter_idx = '7'`)
	rooms, _ := verified(t, path)
	const form = "1:1,7:7-00000,2:B1,7:message,2:42,6:하늘,11:0번째 줄,13:1795341600123,7:7-00000,-,-,"
	if got, want := rooms["7"].Hash, sha256Hex(form); got != want {
		t.Errorf("got %s, want %s, of %q", got, want, form)
	}
}

func TestVerifyDamagedFile(t *testing.T) {
	path := logOf(t, 3000)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 2; i < len(data)/2+3*4096; i++ {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var all []string
	found, err := openReader(t, path).Verify(t.Context(), func(r RoomReport) error { all = append(all, r.Problems...); return nil })
	if len(all)+len(found) == 0 && err == nil {
		t.Error("nothing was found in a file of which three pages are noise")
	}
}
