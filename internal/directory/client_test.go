package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// roomServer is a room server inside the test's time: a transport that answers
// by itself.
type roomServer struct {
	mu     sync.Mutex
	asked  map[string]int
	answer func(r *http.Request) (status int, body string, err error)
	takes  time.Duration
}

func (s *roomServer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body [256]byte
	n, _ := r.Body.Read(body[:])
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[string]int{}
	}
	s.asked[string(body[:n])]++
	answer, takes := s.answer, s.takes
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, text, err := answer(r)
	if err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.WriteHeader(status)
	w.WriteString(text)
	return w.Result(), nil
}

func (s *roomServer) says(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = func(*http.Request) (int, string, error) { return status, body, nil }
}

func (s *roomServer) count(room string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[fmt.Sprintf(`{"presenterIdx":%q}`, room)]
}

func newClient(t *testing.T, s *roomServer) *Client {
	t.Helper()
	c, err := NewClient(ClientOptions{URL: "http://room-server/api", HTTP: &http.Client{Transport: s}, Metrics: NewMetrics(prometheus.NewRegistry())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const yes, no = `{"data":{"alive":true,"roomIdx":881}}`, `{"data":{"alive":false}}`

func TestAnswersAreBelievedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &roomServer{}
		c := newClient(t, s)
		ask := func(wantLive bool, wantAsked int) {
			t.Helper()
			word, err := c.Live(t.Context(), "7")
			if err != nil || word.Live != wantLive || s.count("7") != wantAsked {
				t.Errorf("got %+v %v after %d questions; want live=%v after %d", word, err, s.count("7"), wantLive, wantAsked)
			}
		}
		s.says(200, yes)
		ask(true, 1)
		s.says(200, no)
		time.Sleep(1900 * time.Millisecond)
		ask(true, 1)
		time.Sleep(200 * time.Millisecond)
		ask(false, 2)
		s.says(200, yes)
		time.Sleep(900 * time.Millisecond)
		ask(false, 2)
		time.Sleep(200 * time.Millisecond)
		ask(true, 3)
	})
}

func TestOneQuestionAtATimeForAPresenter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &roomServer{takes: 100 * time.Millisecond}
		s.says(200, yes)
		c := newClient(t, s)
		gone, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 50 {
			ctx := t.Context()
			if i == 0 {
				ctx = gone
			}
			wg.Go(func() {
				if word, err := c.Live(ctx, "7"); err != nil || !word.Live || word.Broadcast != "881" {
					t.Errorf("got %+v %v", word, err)
				}
			})
		}
		synctest.Wait()
		leave() // whoever asked first goes away; the others still get the answer
		wg.Wait()
		if got := s.count("7"); got != 1 {
			t.Errorf("%d questions, want 1", got)
		}
	})
}

func TestWhatIsNoAnswer(t *testing.T) {
	for name, body := range map[string]string{
		"nothing": "", "not JSON": "alive", "no data": `{}`, "alive missing": `{"data":{}}`, "alive null": `{"data":{"alive":null}}`,
		"alive a string": `{"data":{"alive":"true"}}`, "huge": `{"data":{"alive":true,"x":"` + strings.Repeat("x", maxAnswer) + `"}}`,
		"roomIdx an object": `{"data":{"alive":true,"roomIdx":{}}}`, "roomIdx no id": `{"data":{"alive":true,"roomIdx":"a b"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &roomServer{}
				s.says(200, body)
				if word, err := newClient(t, s).Live(t.Context(), "7"); err == nil {
					t.Errorf("took %q for %+v", body, word)
				}
			})
		})
	}
	for _, status := range []int{204, 301, 401, 404, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			s := &roomServer{}
			s.says(status, no)
			if word, err := newClient(t, s).Live(t.Context(), "7"); err == nil {
				t.Errorf("took status %d for %+v: a broken room server must end nobody's broadcast", status, word)
			}
		})
	}
}

func TestIDsOfBroadcasts(t *testing.T) {
	for body, want := range map[string]string{yes: "881", `{"data":{"alive":true,"roomIdx":"r-9"}}`: "r-9", `{"data":{"alive":true}}`: "",
		`{"data":{"alive":true,"roomIdx":null}}`: "", `{"data":{"alive":true,"roomIdx":""}}`: "",
		`{"data":{"alive":true,"roomIdx":1234567890123456789},"more":[1]}`: "1234567890123456789"} {
		if word, err := parseAnswer([]byte(body)); err != nil || !word.Live || word.Broadcast != want {
			t.Errorf("%s: got %+v %v, want %q", body, word, err, want)
		}
	}
}

func TestSlowServerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &roomServer{}
		s.says(200, yes)
		c := newClient(t, s)
		if _, err := c.Live(t.Context(), "7"); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.takes = time.Minute
		s.mu.Unlock()
		time.Sleep(3 * time.Second)
		start := time.Now()
		word, err := c.Live(t.Context(), "7")
		if took := time.Since(start); err == nil || took != 500*time.Millisecond {
			t.Errorf("a question that takes a minute: %v after %v, want an error after 500 ms", err, took)
		}
		if !word.Live || time.Since(word.At) < 3*time.Second {
			t.Errorf("the last word: %+v, want live, 3.5 s old", word)
		}
	})
}

func TestFailingServerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &roomServer{}
		var asked atomic.Int64
		s.answer = func(*http.Request) (int, string, error) { asked.Add(1); return 0, "", errors.New("refused") }
		c := newClient(t, s)
		ask := func() error { _, err := c.Live(t.Context(), "7"); return err }
		for range 20 {
			if ask() == nil {
				t.Fatal("an answer of a server that is down")
			}
		}
		if got := asked.Load(); got != 5 {
			t.Errorf("asked %d times, want 5 before it is left alone", got)
		}
		time.Sleep(1100 * time.Millisecond)
		for range 5 {
			_ = ask()
		}
		if got := asked.Load(); got != 6 {
			t.Errorf("asked %d times after a second, want one probe more", got)
		}
		s.says(200, yes)
		time.Sleep(1100 * time.Millisecond)
		if err := ask(); err != nil {
			t.Errorf("back again: %v", err)
		}
	})
}

// What the desk makes of the room server's words.
func TestExplicitNoAlwaysHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, yes)
		if row := r.send(t, ""); row.Broadcast != "881" {
			t.Errorf("live by the room server's word: broadcast %q, want 881", row.Broadcast)
		}
		r.server.says(200, no)
		time.Sleep(2100 * time.Millisecond)
		r.send(t, chat.BroadcastEndedCode) // linked and running in the fold, and no all the same
	})
}

func TestWhileTheRoomServerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		down := func() { r.server.says(503, "") }
		down()
		r.presence.set("7", true)
		r.send(t, "") // linked: live
		r.presence.set("7", false)
		r.send(t, chat.DirectoryUnavailable) // not linked, never heard of
		r.server.says(200, yes)
		time.Sleep(2 * time.Second)
		r.send(t, "")
		down()
		time.Sleep(20 * time.Second)
		r.send(t, "") // by its last answer
		time.Sleep(11 * time.Second)
		r.send(t, chat.DirectoryUnavailable)
	})
}

func TestBroadcastsFollowTheRoomServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, `{"data":{"alive":true}}`)
		first := r.send(t, "").Broadcast
		r.server.says(200, no)
		time.Sleep(40 * time.Second)
		if st := r.state(t); st.Live() {
			t.Error("40 s of \"not live\": still running")
		}
		r.server.says(200, `{"data":{"alive":true}}`)
		time.Sleep(2 * time.Second)
		if again := r.send(t, "").Broadcast; again != first {
			t.Errorf("live again after 42 s: broadcast %s, want %s to go on", again, first)
		}
		r.server.says(200, no)
		time.Sleep(90 * time.Second)
		r.server.says(200, `{"data":{"alive":true}}`)
		time.Sleep(2 * time.Second)
		second := r.send(t, "").Broadcast
		if second == first {
			t.Error("live again after 90 s: the same broadcast, want a new one")
		}
		r.server.says(200, yes)
		time.Sleep(2 * time.Second)
		if named := r.send(t, "").Broadcast; named != "881" {
			t.Errorf("the room server names it: %s, want 881", named)
		}
	})
}

func TestLinkIsClosedAfterAMinuteOfNo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, no)
		if _, err := r.desk.TakeLink(t.Context(), chat.User{ID: "7"}, "S"); err != nil {
			t.Fatal(err)
		}
		if r.state(t).Live() {
			t.Error("a link opened a broadcast against the room server's word")
		}
		r.follower.Watch("7")
		time.Sleep(55 * time.Second)
		if got := r.closed.Load(); got != 0 {
			t.Errorf("closed after 55 s")
		}
		time.Sleep(20 * time.Second)
		if got := r.closed.Load(); got == 0 {
			t.Errorf("not closed after 75 s")
		}
	})
}

func TestLinkedPresenterGoesLiveWithoutALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.says(200, no)
		if _, err := r.desk.TakeLink(t.Context(), chat.User{ID: "7"}, "S"); err != nil {
			t.Fatal(err)
		}
		r.follower.Watch("7")
		time.Sleep(10 * time.Second) // the room server is a moment behind
		r.server.says(200, yes)
		time.Sleep(10 * time.Second)
		if st := r.state(t); st.Broadcast.ID != "881" {
			t.Errorf("running: %+v, want 881", st.Broadcast)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{yes, no, `{"data":{"alive":true,"roomIdx":"r-9"}}`, `{"data":{"alive":true,"roomIdx":null}}`, `{"data":{"alive":null}}`,
		`{"data":{"alive":true,"roomIdx":1e9}}`, `{"data":{"alive":true,"roomIdx":-1}}`, `{"data":{"alive":true,"alive":false}}`, `{"data":[]}`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		word, err := parseAnswer(data)
		switch {
		case err != nil && word != (chat.Word{}):
			t.Errorf("%q: an error and a word, %+v", data, word)
		case err != nil && len(err.Error()) > 500:
			t.Errorf("%q: an error of %d bytes", data, len(err.Error()))
		case err == nil && word.Broadcast != "" && !chat.ValidID(word.Broadcast):
			t.Errorf("%q: broadcast %q is no id", data, word.Broadcast)
		case err == nil && word.At.IsZero():
			t.Errorf("%q: a word that was never said", data)
		}
	})
}
