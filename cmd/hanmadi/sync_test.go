package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestSyncBeforeAnswer watches the program's system calls: kill -9 proves
// nothing about the disk, as the kernel still writes what a dead process gave
// it. For every line, a sync of the log's WAL must have begun after the page
// with the line was written, and have returned before the 201 began to leave.
func TestSyncBeforeAnswer(t *testing.T) {
	const oneByOne, together = 20, 20
	s := startTraced(t)
	s.openBroadcast("7")
	token := mint(t, "42", "")
	var markers []string
	for i := range oneByOne {
		markers = append(markers, fmt.Sprintf("MARK-ALONE-%02d-END", i))
		s.say(token, "7", markers[i])
	}
	statuses := make([]int, together)
	var senders sync.WaitGroup
	for i := range together {
		marker := fmt.Sprintf("MARK-TOGETHER-%02d-END", i)
		markers = append(markers, marker)
		senders.Go(func() {
			statuses[i] = request(t, http.MethodPost, s.url("/v1/rooms/7/messages"), token, `{"text":"`+marker+`"}`, nil)
		})
	}
	senders.Wait()
	for i, status := range statuses {
		if status != http.StatusCreated {
			t.Errorf("line %d of those said together: got status %d, want 201", i, status)
		}
	}
	calls := parseTrace(t, s.end())
	for _, marker := range markers {
		if fault := syncedBeforeAnswer(calls, marker); fault != "" {
			t.Errorf("%s: %s", marker, fault)
		}
	}
	t.Logf("%d lines in %d system calls", len(markers), len(calls))
}

// traced is a server that runs under strace.
type traced struct {
	*server
	file string
}

func startTraced(t *testing.T) *traced {
	t.Helper()
	// The link of room 7 never comes; its lines wait in the log all the same.
	return startUnderStrace(t, []string{"-y", "-s", "8192",
		"-e", "trace=execve,write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync"},
		"HANMADI_BROADCAST_QUEUE_FOR=1h", "HANMADI_BROADCAST_END_AFTER=1h")
}

// startUnderStrace starts a server whose calls are traced as the options say.
func startUnderStrace(t *testing.T, options []string, env ...string) *traced {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("this test needs strace to see the program's system calls: apt-get install strace (%v)", err)
	}
	s := &traced{newServer(t, "serve", env...), filepath.Join(t.TempDir(), "trace")}
	s.wrap = append([]string{strace, "-f", "-o", s.file}, options...)
	s.launch()
	t.Cleanup(func() { // before strace is killed, which would leave the program running
		if pid := s.pid(); pid > 0 && !s.ended() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // or it has ended this very moment
		}
	})
	s.awaitReady()
	return s
}

// pid is the program's: the first call in the trace is strace starting it. The
// process that the test started is strace itself, which passes no signals on.
func (s *traced) pid() int {
	data, err := os.ReadFile(s.file)
	if err != nil {
		return 0
	}
	first, rest, _ := strings.Cut(string(data), " ")
	pid, err := strconv.Atoi(first)
	if err != nil || !strings.HasPrefix(strings.TrimSpace(rest), "execve(") {
		return 0
	}
	return pid
}

// end stops the program and gives the trace, which is whole when strace ends.
func (s *traced) end() string {
	s.t.Helper()
	if err := syscall.Kill(s.pid(), syscall.SIGTERM); err != nil {
		s.t.Fatalf("SIGTERM to the traced program: %v", err)
	}
	if code := s.wait(); code != exitOK {
		s.t.Fatalf("exit code of the traced program: got %d, want 0; stderr:\n%s", code, s.err.String())
	}
	data, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// syscallMade is a system call, with the lines of the trace where it began and
// returned. A call whose lines are before another's happened before it: strace
// holds each call at both ends until it has written the line.
type syscallMade struct {
	name, fd, path, args string
	began, returned      int
}

var (
	traceLine = regexp.MustCompile(`^(\d+) +(.*)$`)
	callBegin = regexp.MustCompile(`^(\w+)\((?:(\d+)<([^>]*)>)?`)
	callEnd   = regexp.MustCompile(`^<\.\.\. (\w+) resumed>`)
)

// parseTrace puts the two halves of interrupted calls together, thread by
// thread. A call that never returned has returned at line 0.
func parseTrace(t *testing.T, trace string) (calls []*syscallMade) {
	t.Helper()
	open := map[string]*syscallMade{} // by thread
	for i, line := range strings.Split(strings.TrimSuffix(trace, "\n"), "\n") {
		at := i + 1
		parts := traceLine.FindStringSubmatch(line)
		if parts == nil {
			t.Fatalf("line %d of the trace cannot be read: %.200s", at, line)
		}
		thread, rest := parts[1], parts[2]
		if strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "+++") {
			continue // a signal, or the end of a thread
		}
		if end := callEnd.FindStringSubmatch(rest); end != nil {
			call := open[thread]
			if call == nil || call.name != end[1] {
				t.Fatalf("line %d of the trace resumes %s, which thread %s is not in", at, end[1], thread)
			}
			call.returned = at
			delete(open, thread)
			continue
		}
		begin := callBegin.FindStringSubmatch(rest)
		if begin == nil {
			t.Fatalf("line %d of the trace cannot be read: %.200s", at, rest)
		}
		call := &syscallMade{name: begin[1], fd: begin[2], path: begin[3], args: rest, began: at, returned: at}
		if strings.HasSuffix(rest, "<unfinished ...>") {
			call.returned = 0
			open[thread] = call
		}
		calls = append(calls, call)
	}
	return calls
}

// syncedBeforeAnswer finds the write of a line's page, the 201 that tells its
// text, and a sync of the page's file that lies whole between them.
func syncedBeforeAnswer(calls []*syscallMade, marker string) (fault string) {
	var page, answer *syscallMade
	for _, c := range calls {
		switch {
		case !strings.Contains(c.args, marker):
		case page == nil && strings.HasPrefix(c.name, "pwrite") && strings.HasSuffix(c.path, "-wal"):
			page = c
		case answer == nil && strings.Contains(c.args, `"HTTP/1.1 201 `):
			answer = c
		}
	}
	switch {
	case page == nil:
		return "no write of its page to the WAL is in the trace"
	case answer == nil:
		return "no write of its 201 is in the trace"
	}
	for _, c := range calls {
		sync := (c.name == "fsync" || c.name == "fdatasync") && c.fd == page.fd && c.path == page.path
		if sync && page.returned > 0 && page.returned < c.began && c.returned > 0 && c.returned < answer.began {
			return ""
		}
	}
	return fmt.Sprintf("no sync of the WAL lies between the write of its page (lines %d to %d of the trace) and its 201 (line %d)",
		page.began, page.returned, answer.began)
}

// TestParseTrace shows the parser calls that threads interrupt.
func TestParseTrace(t *testing.T) {
	const trace = `10 execve("/x", ["x"], 0x7 /* 1 var */) = 0
10 pwrite64(9</d/x.db-wal>, "MARK", 4, 0 <unfinished ...>
11 write(12<socket:[5]>, "HTTP/1.1 200 OK", 15 <unfinished ...>
10 <... pwrite64 resumed>) = 4
11 <... write resumed>) = 15
11 --- SIGURG {si_signo=SIGURG} ---
10 fsync(9</d/x.db-wal> <unfinished ...>
11 write(12<socket:[5]>, "HTTP/1.1 201 Created MARK", 25) = 25
10 <... fsync resumed>) = 0
10 write(13<socket:[6]>, "HTTP/1.1 201 Created OTHER", 26) = 26
10 +++ exited with 0 +++
`
	calls := parseTrace(t, trace)
	var got []string
	for _, c := range calls {
		got = append(got, fmt.Sprintf("%s %s %d-%d", c.name, c.path, c.began, c.returned))
	}
	want := "execve  1-1, pwrite64 /d/x.db-wal 2-4, write socket:[5] 3-5, fsync /d/x.db-wal 7-9, write socket:[5] 8-8, write socket:[6] 10-10"
	if strings.Join(got, ", ") != want {
		t.Errorf("calls: got %s, want %s", strings.Join(got, ", "), want)
	}
	if fault := syncedBeforeAnswer(calls, "MARK"); !strings.HasPrefix(fault, "no sync") {
		t.Errorf("an answer that leaves while the sync is under way: got %q, want a fault", fault)
	}
	late := parseTrace(t, strings.Replace(trace, `201 Created OTHER`, `201 Created MARK`, 1))
	late[4].args = ""
	if fault := syncedBeforeAnswer(late, "MARK"); fault != "" {
		t.Errorf("an answer that leaves after the sync: got %q, want no fault", fault)
	}
}
