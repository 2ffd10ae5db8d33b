package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chatlog"
)

// runCommand runs the program to its end.
func (s *server) runCommand(args ...string) *process {
	s.t.Helper()
	p := startProcess(s.t, s.dir, s.env, binary, args...)
	p.wait()
	return p
}

// ran wants a command to end well and gives what it printed.
func (s *server) ran(args ...string) string {
	s.t.Helper()
	p := s.runCommand(args...)
	if code := p.wait(); code != exitOK {
		s.t.Fatalf("%s: exit code %d; it wrote:\n%s%s", strings.Join(args, " "), code, p.out.String(), p.err.String())
	}
	if p.err.String() != "" {
		s.t.Errorf("%s: stderr, which is no terminal, got %q", strings.Join(args, " "), p.err.String())
	}
	return p.out.String()
}

// crowd talks in rooms until it is stopped.
type crowd struct {
	mu       sync.Mutex
	answered map[string]string // guarded by mu: text by id, of every line that was answered with 201
	stop     func()
}

func (c *crowd) heard() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.answered)
}

// talk has rooms with several senders each talk at full speed.
func (s *server) talk(rooms ...string) *crowd {
	ctx, cancel := context.WithCancel(s.t.Context())
	c := &crowd{answered: map[string]string{}}
	var wg sync.WaitGroup
	c.stop = func() { cancel(); wg.Wait() }
	s.t.Cleanup(c.stop)
	for _, room := range rooms {
		s.openBroadcast(room)
		for sender := range 3 {
			token := mint(s.t, fmt.Sprint(100+sender), "")
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					var got answer201
					body := fmt.Sprintf(`{"text":"=방%s의 %d번이 말하는 %d번째 줄"}`, room, sender, n)
					if request(s.t, http.MethodPost, s.url("/v1/rooms/"+room+"/messages"), token, body, &got) == http.StatusCreated {
						c.mu.Lock()
						c.answered[got.ID] = got.Text
						c.mu.Unlock()
					}
				}
			})
		}
	}
	return c
}

var logID = regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`)

// A backup that is made under load verifies, restores under a new log id, and
// holds every line that was answered before it began.
func TestBackupUnderLoad(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	crowd := s.talk("7", "8", "9")
	eventually(t, "200 lines are said", func() bool { return len(crowd.heard()) >= 200 })

	backup := filepath.Join(t.TempDir(), "backup.db")
	before := crowd.heard()
	id := logID.FindString(s.ran("log", "backup", "--to", backup))
	during := s.ran("log", "verify", "--quiet")
	eventually(t, "talk goes on behind the backup", func() bool { return len(crowd.heard()) >= len(before)+50 })
	if during != "" {
		t.Errorf("verify of the log under load: got %q, want nothing", during)
	}
	if p := s.runCommand("log", "backup", "--to", backup); p.wait() != exitFailed || !strings.Contains(p.err.String(), "exists") {
		t.Errorf("a second backup to the same file: exit code %d, stderr %q", p.wait(), p.err.String())
	}

	hashes := s.ran("log", "verify", backup)
	if n := strings.Count(hashes, "sha256"); n != 3 {
		t.Errorf("verify of the backup: got %d rooms, want 3:\n%s", n, hashes)
	}
	restored := "--log.url=sqlite:" + filepath.Join(t.TempDir(), "restored.db")
	newID := logID.FindString(s.ran("log", "restore", "--from", backup, restored))
	if id == "" || newID == "" || id == newID {
		t.Errorf("log ids: %q before, %q restored; want two", id, newID)
	}
	if got := s.ran("log", "verify", restored); got != hashes {
		t.Errorf("the restored log is not the backup:\n%swant\n%s", got, hashes)
	}
	wantExported(t, s.ran("log", "export", restored), before)
	crowd.stop()
	wantExported(t, s.ran("log", "export"), crowd.heard()) // beside the server
}

// wantExported checks that lines are in an NDJSON export, and that it counts.
func wantExported(t *testing.T, ndjson string, lines map[string]string) {
	t.Helper()
	there, seqs := map[string]string{}, map[string]int64{}
	for line := range strings.Lines(ndjson) {
		var e struct {
			Room, ID, Text string
			Seq            int64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		there[e.ID] = e.Text
		if seqs[e.Room]++; e.Seq != seqs[e.Room] {
			t.Fatalf("room %s: seq %d stands where %d is due", e.Room, e.Seq, seqs[e.Room])
		}
	}
	missing := 0
	for id, text := range lines {
		if there[id] != text {
			missing++
		}
	}
	if missing > 0 || len(lines) == 0 {
		t.Errorf("%d of %d lines that were answered are not in the export", missing, len(lines))
	}
}

func TestExport(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	for _, room := range []string{"7", "8"} {
		s.openBroadcast(room)
		s.say(mint(t, "42", "하늘"), room, "=1+1 안녕하세요")
		s.say(mint(t, "43", "바다"), room, "둘째 줄")
	}
	s.kill() // what is in the WAL is read as well
	lines := func(args ...string) []string {
		t.Helper()
		out := strings.TrimSuffix(s.ran(append([]string{"log", "export"}, args...)...), "\n")
		if out == "" {
			return nil
		}
		return strings.Split(out, "\n")
	}
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 6}, {[]string{"--room=7"}, 3}, {[]string{"--room=nobody"}, 0}, {[]string{"--broadcast=b-8"}, 3}, {[]string{"--room=7", "--after=1"}, 2},
		{[]string{"--room=7", "--after=1", "--before=3"}, 1}, {[]string{"--since=2100-01-01T00:00:00Z"}, 0}, {[]string{"--until=2100-01-01T00:00:00Z"}, 6},
		{[]string{"--until=2020-01-01T00:00:00+09:00"}, 0}, {[]string{"--since=2020-01-01T00:00:00Z"}, 6}, {[]string{"--format=csv"}, 7},
	} {
		if got := lines(c.args...); len(got) != c.want {
			t.Errorf("%v: got %d lines, want %d:\n%s", c.args, len(got), c.want, strings.Join(got, "\n"))
		}
	}
	if got := strings.Join(lines("--room=7", "--public"), ""); strings.Contains(got, "staff") || !strings.Contains(got, `"nickname":"하늘"`) {
		t.Errorf("public: got %s", got)
	}
	records, err := csv.NewReader(strings.NewReader(strings.Join(lines("--room=7", "--format=csv"), "\n"))).ReadAll()
	if err != nil || len(records) != 4 || records[0][10] != "text" || records[2][10] != "'=1+1 안녕하세요" {
		t.Errorf("csv: got %q %v", records, err)
	}
	to := filepath.Join(t.TempDir(), "out.csv")
	if got := lines("--format=csv", "--bom", "--to", to); len(got) != 0 {
		t.Errorf("with --to stdout got %q", got)
	}
	data, err := os.ReadFile(to)
	if err != nil || !strings.HasPrefix(string(data), "\ufeffroom,seq,") || strings.Count(string(data), "\n") != 7 {
		t.Errorf("file: got %q %v", data, err)
	}
	if p := s.runCommand("log", "export", "--to", to); p.wait() != exitFailed || !strings.Contains(p.err.String(), "exists") {
		t.Errorf("over a file that is there: exit code %d, stderr %q", p.wait(), p.err.String())
	}
}

func TestVerifyTellsByItsExitCode(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	s.openBroadcast("7")
	s.say(mint(t, "42", ""), "7", "첫 줄")
	s.say(mint(t, "42", ""), "7", "둘째 줄")
	s.stop()
	alter(t, s.logPath(), `DELETE FROM chat_log WHERE seq = 2`)
	p := s.runCommand("log", "verify", "--quiet")
	if code := p.wait(); code != exitFailed || p.out.String() != "room 7: gap: seq 2 is missing\n" {
		t.Errorf("a log with a gap: exit code %d, stdout %q", code, p.out.String())
	}
	if p := s.runCommand("log", "verify", "nowhere.db"); p.wait() != exitFailed || !strings.Contains(p.err.String(), "nowhere.db") {
		t.Errorf("no such log: exit code %d, stderr %q", p.wait(), p.err.String())
	}
}

// alter changes a log behind the program's back.
func alter(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

func TestLogUsageErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for said, args := range map[string][]string{
		"--room":     {"export", "--after=3"},
		"negative":   {"export", "--room=7", "--before=-1"},
		"not the id": {"export", "--room=-7"},
		"--format":   {"export", "--format=xml"},
		"--since":    {"export", "--since=yesterday"},
		"--to":       {"backup"},
		"sqlite:":    {"verify", "--log.url=mongo:x"},
	} {
		call(append([]string{"log"}, args...)...).want(t, exitUsage, said)
	}
	for _, args := range [][]string{{"export"}, {"backup", "--to=x.db"}, {"verify"}, {"reindex"}} {
		call(append([]string{"log"}, args...)...).want(t, exitFailed, "hanmadi.db")
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// A disk with less space than is to be kept free takes no line more; what is
// there can be read, and the platform is told to go elsewhere.
func TestNoSpaceLeft(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	s.openBroadcast("7")
	s.say(mint(t, "42", ""), "7", "아직 있는 줄")
	s.stop()
	s.env = append(s.env, "HANMADI_LOG_MIN_FREE=1000000000000000000")
	s.start()
	var refused struct{ Code string }
	status := request(t, http.MethodPost, s.url("/v1/rooms/7/messages"), mint(t, "42", ""), `{"text":"x"}`, &refused)
	if status != http.StatusServiceUnavailable || refused.Code != "log.unavailable" {
		t.Errorf("a line: got %d %s, want 503 log.unavailable", status, refused.Code)
	}
	var page struct{ Head int64 }
	if status := request(t, http.MethodGet, s.url("/v1/rooms/7/events"), "", "", &page); status != http.StatusOK || page.Head != 2 {
		t.Errorf("events: got %d with head %d, want 200 and 2", status, page.Head)
	}
	var ready struct {
		Status   string
		Degraded []string
	}
	if status := request(t, http.MethodGet, s.adminURL("/readyz"), "", "", &ready); status != http.StatusServiceUnavailable || ready.Status != "failing" || len(ready.Degraded) != 1 {
		t.Errorf("readyz: got %d %+v, want 503 failing for the log", status, ready)
	}
}

// found searches a room to its beginning and gives the ids of what is there.
func (s *server) found(room, q string) map[string]bool {
	s.t.Helper()
	ids := map[string]bool{}
	for before := ""; ; {
		var page struct {
			Events []struct{ ID, Text string }
			Next   *int64
		}
		status := request(s.t, http.MethodGet, s.url("/v1/rooms/"+room+"/events?limit=200&q="+url.QueryEscape(q)+before), "", "", &page)
		if status != http.StatusOK {
			s.t.Fatalf("search %q in room %s: got status %d, want 200", q, room, status)
		}
		for _, e := range page.Events {
			ids[e.ID] = true
		}
		if page.Next == nil {
			return ids
		}
		before = fmt.Sprint("&before=", *page.Next)
	}
}

// Whatever was answered is found: at once, after a kill in the middle of
// indexing, with an index that was deleted, and with one that was made anew.
func TestSearchAcrossKills(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
	rooms := []string{"7", "8"}
	crowd := s.talk(rooms...)
	want := func(when string) {
		t.Helper()
		heard := crowd.heard()
		got := map[string]bool{}
		for _, room := range rooms {
			maps.Copy(got, s.found(room, "줄 방"+room))
		}
		missing := 0
		for id := range heard {
			if !got[id] {
				missing++
			}
		}
		if missing > 0 || len(heard) == 0 {
			t.Errorf("%s: %d of %d lines are not found", when, missing, len(heard))
		}
	}
	for round := range 3 {
		said := len(crowd.heard())
		eventually(t, "100 more lines are said", func() bool { return len(crowd.heard()) >= said+100 })
		want("under load")
		s.kill()
		s.start()
		want(fmt.Sprintf("after kill %d", round+1))
	}
	crowd.stop()
	s.stop()
	index := chatlog.IndexPath(s.logPath())
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	s.start()
	want("with an index that was deleted")
	s.stop()
	if out := s.ran("log", "reindex"); !strings.Contains(out, index) {
		t.Errorf("reindex: got %q", out)
	}
	s.start()
	want("with an index that was made anew")
	if p := s.runCommand("log", "reindex"); p.wait() != exitFailed || !strings.Contains(p.err.String(), "another process") {
		t.Errorf("reindex under a server: exit code %d, stderr %q", p.wait(), p.err.String())
	}
	s.stop()
	s.env = append(s.env, "HANMADI_LOG_SEARCH=false")
	s.start()
	var refused struct{ Code string }
	if status := request(t, http.MethodGet, s.url("/v1/rooms/7/events?q=a"), "", "", &refused); status != http.StatusNotFound || refused.Code != "search.off" {
		t.Errorf("switched off: got %d %s, want 404 search.off", status, refused.Code)
	}
}
