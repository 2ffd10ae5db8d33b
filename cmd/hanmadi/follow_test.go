package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// TestFollowersAcrossRestarts follows a room through a kill and a stop, coming
// back as a browser does, and is given every seq once.
func TestFollowersAcrossRestarts(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_DRAIN_OVER=0s")
	s.openBroadcast("7")
	token := mint(t, "42", "하늘")
	seen := &seen{T: t}

	stream := seen.follow(s)
	s.say(token, "7", "하나")
	seen.until(stream, 2)
	s.kill()
	s.start()
	s.say(token, "7", "끊긴 사이")

	stream = seen.follow(s)
	seen.until(stream, 3)
	s.say(token, "7", "둘")
	seen.until(stream, 4)
	s.stop()
	last := seen.rest(stream)
	if !strings.Contains(last, "event: error\n") || !strings.Contains(last, `"code":"draining"`) {
		t.Errorf("the stream's last words: %q, want an error that says draining", last)
	}
	if want := []int64{2, 3, 4}; !slices.Equal(seen.seqs, want) {
		t.Errorf("got seqs %v, want %v", seen.seqs, want)
	}
}

// TestListenFollows has the program itself follow, with no token.
func TestListenFollows(t *testing.T) {
	s := startServer(t, "serve", "HANMADI_DRAIN_OVER=0s")
	s.openBroadcast("7")
	token := mint(t, "42", "하늘")
	listen := s.program("", "listen", "--follow", "7", "--json", "--count", "3")
	listen.awaitSaid("following room 7 from #1")
	s.say(token, "7", "하나")
	s.stop()
	s.start()
	s.say(token, "7", "둘")
	s.say(token, "7", "셋")
	listen.said()
	var seqs []int64
	for _, e := range listen.listened() {
		seqs = append(seqs, e.Seq)
	}
	if want := []int64{2, 3, 4}; !slices.Equal(seqs, want) {
		t.Errorf("got seqs %v, want %v; it told:\n%s", seqs, want, listen.err.String())
	}
	beyond := s.program("", "listen", "--follow", "7", "--after", "99", "--count", "1")
	beyond.awaitSaid("the server has another log")
	beyond.awaitSaid("following room 7 from #4")
	if refused := s.program("not a token", "listen", "--follow", "7"); refused.wait() == exitOK || !strings.Contains(refused.err.String(), "token.invalid") {
		t.Errorf("with a bad token: %s", refused.err.String())
	}
}

// seen is what a viewer has of a room.
type seen struct {
	*testing.T
	id   string // of the last event
	seqs []int64
}

func (v *seen) follow(s *server) *bufio.Reader {
	v.Helper()
	req, err := http.NewRequestWithContext(v.Context(), "GET", s.url("/v1/rooms/7/events"), nil)
	if err != nil {
		v.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if v.id != "" {
		req.Header.Set("Last-Event-ID", v.id)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		v.Fatalf("follow: %v, %v", resp, err)
	}
	v.Cleanup(func() { resp.Body.Close() })
	return bufio.NewReader(resp.Body)
}

// until reads up to a seq.
func (v *seen) until(stream *bufio.Reader, seq int64) {
	v.Helper()
	for len(v.seqs) == 0 || v.seqs[len(v.seqs)-1] < seq {
		line, err := stream.ReadString('\n')
		if err != nil {
			v.Fatalf("waiting for seq %d: %v", seq, err)
		}
		v.take(strings.TrimSuffix(line, "\n"))
	}
}

func (v *seen) take(line string) {
	v.Helper()
	name, value, _ := strings.Cut(line, ": ")
	switch name {
	case "id":
		v.id = value
	case "data":
		var frame struct{ Payload string }
		var payload struct{ Events []chat.Event }
		if err := json.Unmarshal([]byte(value), &frame); err != nil {
			v.Fatal(err)
		}
		if err := json.Unmarshal([]byte(frame.Payload), &payload); err != nil {
			v.Fatal(err)
		}
		for _, e := range payload.Events {
			v.seqs = append(v.seqs, e.Seq)
		}
	}
}

// rest is what is left of a stream that ends.
func (v *seen) rest(stream *bufio.Reader) string {
	v.Helper()
	var all strings.Builder
	if _, err := stream.WriteTo(&all); err != nil {
		v.Fatalf("the stream's end: %v", err)
	}
	return all.String()
}
