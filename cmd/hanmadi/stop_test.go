package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// opened opens a presenter's link and waits until it has taken its room.
func opened(t *testing.T, s *server, room string) *linkClient {
	t.Helper()
	l, err := dialLink(t.Context(), s.listen, startFrame{Token: mint(t, room, "")})
	if err != nil {
		t.Fatalf("link of room %s: %v", room, err)
	}
	t.Cleanup(func() { _ = l.conn.CloseNow() })
	if f, err := l.next(t.Context()); err != nil || f.Type != "welcome" {
		t.Fatalf("link of room %s: got %+v %v, want a welcome", room, f, err)
	}
	return l
}

// ending reads a link to its end and gives its close code.
func (l *linkClient) ending(t *testing.T) int {
	t.Helper()
	for {
		if _, err := l.next(t.Context()); err != nil {
			return closeCode(err)
		}
	}
}

// halfSaid is a request whose body has not ended yet.
type halfSaid struct {
	conn net.Conn
	rest string
}

// beginSaying sends all of a line's request but the end.
func beginSaying(t *testing.T, s *server, token, room, text string) halfSaid {
	t.Helper()
	conn, err := net.Dial("tcp", s.listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	body := fmt.Sprintf(`{"text":%q}`, text)
	whole := fmt.Sprintf("POST /v1/rooms/%s/messages HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		room, s.listen, token, len(body), body)
	half := len(whole) - len(body)/2
	if _, err := conn.Write([]byte(whole[:half])); err != nil {
		t.Fatal(err)
	}
	return halfSaid{conn, whole[half:]}
}

// end sends the rest and gives the answer's status, 0 for none.
func (h halfSaid) end(t *testing.T) int {
	t.Helper()
	if _, err := h.conn.Write([]byte(h.rest)); err != nil {
		t.Errorf("the rest of a request: %v", err)
		return 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(h.conn), nil)
	if err != nil {
		t.Errorf("the answer to a request that was in flight: %v", err)
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// While a server drains it says that it is not ready, turns new links away and
// takes lines; it says goodbye to every link, and leaves all of the log in one file.
func TestStopDrains(t *testing.T) {
	// Of two links the second has its goodbye after half of the time: until then
	// the server drains, however slow this machine is.
	s := startServer(t, "serve", "HANMADI_DRAIN_OVER=20s")
	links := []*linkClient{opened(t, s, "7"), opened(t, s, "8")}
	s.signal(syscall.SIGTERM)
	var ready struct{ Status string }
	eventually(t, "readyz says that the server drains", func() bool {
		return request(t, http.MethodGet, s.adminURL("/readyz"), "", "", &ready) == http.StatusServiceUnavailable && ready.Status == "draining"
	})
	late, err := dialLink(t.Context(), s.listen, startFrame{Token: mint(t, "10", "")})
	if err != nil {
		t.Fatalf("a new link: %v; want it upgraded and told why not", err)
	}
	if code := late.ending(t); code != 4001 || late.told != "draining" {
		t.Errorf("a new link: got close code %d and %q, want 4001 and draining", code, late.told)
	}
	s.say(mint(t, "42", ""), "7", "아직 받아요")
	for i, l := range links {
		if code := l.ending(t); code != 4001 || l.told != "draining" {
			t.Errorf("link %d: got close code %d and %q, want 4001 and draining", i, code, l.told)
		}
	}
	if code := s.wait(); code != exitOK {
		t.Errorf("exit code: got %d, want 0; stderr:\n%s", code, s.err.String())
	}
	if wal, err := os.Stat(s.logPath() + "-wal"); err == nil && wal.Size() > 0 {
		t.Errorf("the log's WAL: got %d bytes, want all of it in the file", wal.Size())
	}
	s.start()
	s.wantLine("7", "아직 받아요")
}

// wantLine wants a line to be the last of its room.
func (s *server) wantLine(room, text string) {
	s.t.Helper()
	var page struct{ Events []event }
	if status := request(s.t, http.MethodGet, s.url("/v1/rooms/"+room+"/events"), "", "", &page); status != http.StatusOK {
		s.t.Fatalf("events: got status %d, want 200", status)
	}
	for _, e := range page.Events {
		if e.Text == text {
			return
		}
	}
	s.t.Errorf("room %s: got %+v, want a line %q among them", room, page.Events, text)
}

// A request that the stop finds half sent is finished: its line is logged and
// answered when nobody new is let in any more.
func TestStopFinishesRequestsInFlight(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_DRAIN_OVER=0s")
	s.openBroadcast("7")
	half := beginSaying(t, s, mint(t, "42", ""), "7", "반쯤 말했다")
	s.say(mint(t, "42", ""), "7", "그 사이")
	s.signal(syscall.SIGTERM)
	eventually(t, "the server lets nobody in", func() bool {
		conn, err := net.Dial("tcp", s.listen)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	if status := half.end(t); status != http.StatusCreated {
		t.Errorf("the request in flight: got status %d, want 201", status)
	}
	if code := s.wait(); code != exitOK {
		t.Errorf("exit code: got %d, want 0; stderr:\n%s", code, s.err.String())
	}
	s.start()
	s.wantLine("7", "반쯤 말했다")
}

// A second signal ends the program at once, as one expects who has no patience;
// SIGHUP, which asks for keys, is no such signal.
func TestSecondSignal(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_DRAIN_OVER=1h")
	first, second := opened(t, s, "7"), opened(t, s, "8")
	s.say(mint(t, "42", ""), "7", "곧 끝나요")
	s.signal(syscall.SIGTERM)
	s.awaitSaid(`"msg":"draining"`)
	s.signal(syscall.SIGHUP)
	// One of the two has its goodbye at once, the other in half an hour.
	ends := make(chan int, 2)
	for _, l := range []*linkClient{first, second} {
		go func() { ends <- l.ending(t) }()
	}
	if code := <-ends; code != 4001 {
		t.Errorf("the first goodbye: got close code %d, want 4001", code)
	}
	if s.ended() {
		t.Fatal("the server has ended before the second signal")
	}
	s.signal(os.Interrupt)
	if code := s.wait(); code != exitFailed || !strings.Contains(s.err.String(), "second signal") {
		t.Errorf("after the second signal: got exit code %d, want %d; stderr:\n%s", code, exitFailed, s.err.String())
	}
	<-ends
	s.start()
	s.wantLine("7", "곧 끝나요")
}
