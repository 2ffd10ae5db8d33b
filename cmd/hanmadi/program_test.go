package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanmadi/hanmadi/internal/token"
)

// binary is the program under test; set once by TestMain.
var binary string

// patience is how long a state may take to come about. It says nothing of how
// fast the program should be: a loaded machine must not fail a test.
const patience = 15 * time.Second

// Secrets of the servers under test. Each is unlike anything else that is
// written, so that a leak is found by looking for it.
const (
	tokenSecret    = "secret-of-the-tests-for-tokens-4f1c09a7d2"
	operatorSecret = "secret-of-the-tests-for-operators-b83e5561"
)

// TestMain builds the program once, without -race: what is tested is what
// people run.
func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "HANMADI_") && !strings.HasPrefix(name, "HANMADI_TEST_") {
			os.Unsetenv(name) // settings of whoever runs the tests are not theirs
		}
	}
	dir, err := os.MkdirTemp("", "hanmadi-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot make a folder for the program under test:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "hanmadi")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the program under test: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// eventually waits until a state is reached; what names it.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	if !within(patience, reached) {
		t.Fatalf("after %s this has not come about: %s", patience, what)
	}
}

// within asks again and again, for at most d, whether a state is reached.
func within(d time.Duration, reached func() bool) bool {
	deadline := time.Now().Add(d)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// pause waits, or returns false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// transcript is what a process has written so far.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.buf.Write(p)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.buf.String()
}

// lines are the whole lines written so far.
func (tr *transcript) lines() []string {
	s := tr.String()
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		return strings.Split(s[:i], "\n")
	}
	return nil
}

// process is one run of a program. Its methods belong to the test's goroutine,
// except kill and ended.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err transcript
	done     chan struct{} // closed when it has ended
}

// startProcess runs a program in a folder, with nothing of our environment but
// the PATH. It is killed at the end of the test when it still runs.
func startProcess(t *testing.T, dir string, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its exit code is asked for where it matters
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

// kill ends the process as a crash of the machine's kernel would: at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // or it has ended already
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s to %s: %v", sig, p.cmd, err)
	}
}

// wait gives the exit code of a process that is about to end; -1 after a kill.
func (p *process) wait() int {
	p.t.Helper()
	if !within(patience, p.ended) {
		p.t.Fatalf("%s has not ended after %s; it wrote:\n%s%s", p.cmd, patience, p.out.String(), p.err.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// server is the program serving, on a data folder and addresses that outlive
// its processes.
type server struct {
	t             *testing.T
	command       string // serve or dev
	dir           string
	env           []string
	wrap          []string // a program and its arguments to run it under
	listen, admin string   // dev has but listen, and admin is the same
	*process               // of the moment
}

// newServer prepares a server; env comes on top of its addresses and secrets.
func newServer(t *testing.T, command string, env ...string) *server {
	t.Helper()
	s := &server{t: t, command: command, dir: t.TempDir(), listen: freeAddress(t)}
	// Senders of tests are no people; what is about limits sets its own.
	s.env = []string{"HANMADI_LISTEN=" + s.listen, "HANMADI_LOG_URL=sqlite:" + s.logPath(),
		"HANMADI_LIMITS_USER_PER_30S=1000000", "HANMADI_LIMITS_ROOM_PER_S=1000000",
		"HANMADI_LIMITS_ADDRESS_PER_30S=1000000", "HANMADI_LIMITS_ATTEMPTS_PER_30S=1000000"}
	if s.admin = s.listen; command == "serve" {
		s.admin = freeAddress(t)
		s.env = append(s.env, "HANMADI_ADMIN_LISTEN="+s.admin,
			"HANMADI_TOKEN_SECRET="+tokenSecret, "HANMADI_TOKEN_OPERATOR_SECRET="+operatorSecret)
	}
	s.env = append(s.env, env...)
	return s
}

// startServer starts the program and waits until it takes requests.
func startServer(t *testing.T, command string, env ...string) *server {
	t.Helper()
	s := newServer(t, command, env...)
	s.start()
	return s
}

func (s *server) logPath() string { return filepath.Join(s.dir, "data", "hanmadi.db") }

// launch starts a process; ready says when it takes requests.
func (s *server) launch() {
	s.t.Helper()
	args := append(append([]string{}, s.wrap...), binary, s.command)
	s.process = startProcess(s.t, s.dir, s.env, args[0], args[1:]...)
}

func (s *server) start() {
	s.t.Helper()
	s.launch()
	s.awaitReady()
}

// awaitReady waits for the line that this very process logs when it is ready;
// an answer on its port could be another's.
func (s *server) awaitReady() {
	s.t.Helper()
	ready := func() bool {
		log := s.err.String()
		return strings.Contains(log, `"msg":"ready"`) || strings.Contains(log, "msg=ready")
	}
	if within(patience, func() bool { return ready() || s.ended() }) && ready() {
		return
	}
	s.t.Fatalf("hanmadi %s is not ready (ended: %t); it wrote:\n%s%s", s.command, s.ended(), s.out.String(), s.err.String())
}

// stop asks the program to end and checks that it does so well.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.wait(); code != exitOK {
		s.t.Errorf("exit code after SIGTERM: got %d, want 0; stderr:\n%s", code, s.err.String())
	}
}

func (s *server) url(path string) string      { return "http://" + s.listen + path }
func (s *server) adminURL(path string) string { return "http://" + s.admin + path }

// freeAddress finds a port that nobody listens on, below the range that systems
// take for outgoing connections. A client that dials a port of that range while
// the server is down may get the same one for its own end: it is then connected
// to itself, and the server cannot come back.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 15_000+rand.N(15_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port between 15,000 and 30,000 in 100 tries")
	return ""
}

// mint makes a token for a user of the servers under test.
func mint(t *testing.T, user, nickname string) string {
	t.Helper()
	return mintWith(t, tokenSecret, user, nickname)
}

func mintWith(t *testing.T, secret, user, nickname string) string {
	t.Helper()
	signed, err := token.Mint([]byte(secret), token.Claims{UserID: user, Nickname: nickname, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// request sends a request of the test's own and decodes the answer into out,
// unless that is nil. The status is 0 when there was no answer that can be
// read. It may be called from any goroutine.
func request(t *testing.T, method, url, token, body string, out any) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return do(t, req, out)
}

// fresh opens a connection for every request: one that is kept could belong to
// a process that is no more.
var fresh = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

func do(t *testing.T, req *http.Request, out any) (status int) {
	t.Helper()
	resp, err := fresh.Do(req)
	if err != nil {
		return 0 // which the caller did not want, or waits to pass
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			t.Errorf("%s %s answered %d with %q: %v", req.Method, req.URL, resp.StatusCode, data, err)
		}
	}
	return resp.StatusCode
}

// openBroadcast makes a room live without a link.
func (s *server) openBroadcast(room string) {
	s.t.Helper()
	operator := mintWith(s.t, operatorSecret, "platform", "")
	status := request(s.t, http.MethodPut, s.adminURL("/v1/rooms/"+room+"/broadcast"), operator, `{"id":"b-`+room+`"}`, nil)
	if status != http.StatusCreated {
		s.t.Fatalf("opening a broadcast in room %s: got status %d, want 201", room, status)
	}
}

// say says a line and wants it logged.
func (s *server) say(token, room, text string) answer201 {
	s.t.Helper()
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		s.t.Fatal(err)
	}
	var got answer201
	if status := request(s.t, http.MethodPost, s.url("/v1/rooms/"+room+"/messages"), token, string(body), &got); status != http.StatusCreated {
		s.t.Fatalf("saying %q in room %s: got status %d, want 201", text, room, status)
	}
	return got
}

// answer201 is the answer to a line that is in the log.
type answer201 struct {
	ID, At, Text, Delivery string
	Seq                    int64
}
