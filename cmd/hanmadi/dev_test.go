package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDevServesThisMachineOnly(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0"} {
		call("dev", "--listen="+addr).want(t, exitUsage, "listen", "this machine only")
	}
}

// A page of another site whose name was pointed at this machine (DNS
// rebinding) sends its own name as Host.
func TestDevHost(t *testing.T) {
	s := startServer(t, "dev")
	port := s.listen[strings.LastIndexByte(s.listen, ':'):]
	for host, want := range map[string]int{
		s.listen: http.StatusOK, "localhost" + port: http.StatusOK, "LOCALHOST" + port: http.StatusOK, "[::1]" + port: http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example" + port: http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example" + port: http.StatusMisdirectedRequest, "localhost:1": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/livez", "/v1/rooms/7", "/v1/presenter", "/nowhere"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			if path == "/v1/presenter" { // an upgrade that is not whole: a whole one would wait for its start frame
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
			}
			if want == http.StatusOK {
				if status := do(t, req, nil); status == http.StatusMisdirectedRequest {
					t.Errorf("Host %s on %s: refused as foreign", host, path)
				}
				continue
			}
			var p problem
			if status := do(t, req, &p); status != want || p.Code != "host.foreign" {
				t.Errorf("Host %s on %s: got status %d code %q, want %d host.foreign", host, path, status, p.Code, want)
			}
		}
	}
}

// What dev leaves on the disk is for its user alone.
func TestDevFilesArePrivate(t *testing.T) {
	s := startServer(t, "dev")
	folder := filepath.Dir(s.logPath())
	for name, want := range map[string]os.FileMode{
		"token.secret": 0o600, "operator.secret": 0o600, "seal.key": 0o600, "hanmadi.db": 0o600, "hanmadi.db-wal": 0o600, ".": 0o700,
	} {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s: got %04o, want %04o", name, got, want)
		}
	}
}

// program runs a command of the program against a server, as a user.
func (s *server) program(token string, args ...string) *process {
	s.t.Helper()
	return startProcess(s.t, s.dir, []string{"HANMADI_URL=http://" + s.listen, "HANMADI_TOKEN=" + token}, binary, args...)
}

// said is what a command that should succeed prints.
func (p *process) said() string {
	p.t.Helper()
	if code := p.wait(); code != exitOK {
		p.t.Fatalf("%s: got exit code %d, want 0; it wrote:\n%s%s", p.cmd, code, p.out.String(), p.err.String())
	}
	return strings.TrimSpace(p.out.String())
}

// awaitSaid waits until a process has said something on standard error.
func (p *process) awaitSaid(text string) {
	p.t.Helper()
	if !within(patience, func() bool { return strings.Contains(p.err.String(), text) || p.ended() }) || !strings.Contains(p.err.String(), text) {
		p.t.Fatalf("%s has not said %q (ended: %t); it wrote:\n%s%s", p.cmd, text, p.ended(), p.out.String(), p.err.String())
	}
}

// listened decodes what listen --json has printed so far.
func (p *process) listened() (events []event) {
	p.t.Helper()
	for _, line := range p.out.lines() {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			p.t.Fatalf("listen printed %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// From nothing to a line on the presenter's screen, with the commands that a
// newcomer types.
func TestConversationOnDev(t *testing.T) {
	s := startServer(t, "dev")
	tokenOf := func(args ...string) string {
		return startProcess(t, s.dir, s.env, binary, append([]string{"token"}, args...)...).said()
	}
	presenter, viewer := tokenOf("7"), tokenOf("42", "--nickname", "하늘", "--attrs", `{"badge":"fan"}`)
	listen := s.program(presenter, "listen", "--json", "--count", "3")
	listen.awaitSaid("linked to room 7")
	receipt := s.program(viewer, "say", "7", "안녕하세요 <여러분>").said()
	if !strings.HasPrefix(receipt, "#3 ") || !strings.HasSuffix(receipt, " linked") {
		t.Errorf("say: got %q, want #3 … linked", receipt)
	}
	listen.said()
	got := listen.listened()
	if len(got) != 3 || got[0].Kind != "broadcast" || got[1].Kind != "hidden" || got[2].Kind != "message" {
		t.Fatalf("listen: got %+v, want a broadcast's start, a hidden row and a line", got)
	}
	want := eventUser{ID: "42", Nickname: "하늘", Role: "viewer"}
	if got[2].Seq != 3 || got[2].Text != "안녕하세요 <여러분>" || got[2].User != want || got[2].Broadcast != got[0].Broadcast {
		t.Errorf("listen: got %+v, want the line #3 of %+v", got[2], want)
	}
	plain := s.program(presenter, "listen", "--after", "2", "--count", "1").said()
	if !strings.HasSuffix(plain, "#3 하늘: 안녕하세요 <여러분>") {
		t.Errorf("listen for people: got %q, want #3 하늘: 안녕하세요 <여러분>", plain)
	}

	s.stop()
	s.start()
	again := s.program(viewer, "say", "7", "다시", "--reply-to", "3").said()
	if !strings.Contains(again, " queued") {
		t.Errorf("say after a restart with the token from before: got %q, want it queued", again)
	}
}

func TestSayWhereNobodyBroadcasts(t *testing.T) {
	s := startServer(t, "dev")
	viewer := startProcess(t, s.dir, s.env, binary, "token", "42").said()
	for lang, sentence := range map[string]string{"C.UTF-8": "The broadcast has ended. (broadcast.ended)", "ko_KR.UTF-8": "방송 종료되었습니다 (broadcast.ended)"} {
		say := startProcess(t, s.dir, []string{"HANMADI_URL=http://" + s.listen, "HANMADI_TOKEN=" + viewer, "LANG=" + lang}, binary, "say", "7", "여보세요")
		if code := say.wait(); code != exitFailed {
			t.Errorf("exit code: got %d, want %d", code, exitFailed)
		}
		if got := strings.TrimSpace(say.err.String()); got != "hanmadi: "+sentence || say.out.String() != "" {
			t.Errorf("say with LANG=%s: got %q and on stdout %q, want %q", lang, got, say.out.String(), sentence)
		}
	}
}
