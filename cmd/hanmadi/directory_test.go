package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/directory"
)

// newDirectory is the program's own client of a room server, with answers that
// are believed for a millisecond.
func newDirectory(t *testing.T, url string) *directory.Client {
	t.Helper()
	c, err := directory.NewClient(directory.ClientOptions{URL: url, LiveFor: time.Millisecond, NotLiveFor: time.Millisecond,
		BreakAfter: 1000, Metrics: directory.NewMetrics(prometheus.NewRegistry())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ask asks anew, and not what was heard a millisecond ago.
func ask(t *testing.T, c *directory.Client, room string) (chat.Word, error) {
	t.Helper()
	pause(t.Context(), 10*time.Millisecond)
	return c.Live(t.Context(), room)
}

// Our registry is a room server too, on the operators' address: what asks the
// platform's asks it as well.
func TestRegistryIsARoomServer(t *testing.T) {
	s := startServer(t, "serve")
	c := newDirectory(t, "http://"+s.admin)
	want := func(room string, live bool, broadcast string) {
		t.Helper()
		if word, err := ask(t, c, room); err != nil || word.Live != live || broadcast != "" && word.Broadcast != broadcast {
			t.Errorf("room %s: got %+v (%v), want live=%t %s", room, word, err, live, broadcast)
		}
	}
	want("7", false, "")
	s.openBroadcast("7")
	want("7", true, "b-7")
	operator := mintWith(t, operatorSecret, "platform", "")
	if status := request(t, http.MethodDelete, s.adminURL("/v1/rooms/7/broadcast"), operator, "", nil); status != http.StatusNoContent {
		t.Fatalf("ending the broadcast: status %d", status)
	}
	want("7", false, "")

	l, err := dialLink(t.Context(), s.listen, startFrame{Token: mint(t, "8", "")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.conn.CloseNow()
	if _, err := l.next(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("8", true, "")
	if status := request(t, http.MethodPost, s.url("/check"), "", `{"presenterIdx":"8"}`, nil); status != http.StatusNotFound {
		t.Errorf("/check on the address for everybody: got %d, want 404", status)
	}
}

// A second server can stand beside the first and have it say who is live.
func TestOneServerAsksAnother(t *testing.T) {
	first := startServer(t, "serve")
	second := startServer(t, "serve", "HANMADI_DIRECTORY_URL=http://"+first.admin)
	viewer := mint(t, "42", "하늘")
	say := func() (status int, code string) {
		var p problem
		status = request(t, http.MethodPost, second.url("/v1/rooms/7/messages"), viewer, `{"text":"안녕"}`, &p)
		return status, p.Code
	}
	if status, code := say(); status != http.StatusGone || code != "broadcast.ended" {
		t.Errorf("not live: got %d %s", status, code)
	}
	first.openBroadcast("7")
	eventually(t, "the second hears that the room is live", func() bool { status, _ := say(); return status == http.StatusCreated })
	var room struct{ Broadcast struct{ ID string } }
	if status := request(t, http.MethodGet, second.url("/v1/rooms/7"), "", "", &room); status != http.StatusOK || room.Broadcast.ID != "b-7" {
		t.Errorf("the second's broadcast: %d %+v, want b-7", status, room)
	}
}

// Over real connections a room server that misbehaves is an error, in bounded
// time; it is never a no.
func TestMisbehavingRoomServer(t *testing.T) {
	s := newRoomServer(t)
	s.live("7", 881)
	c := newDirectory(t, "http://"+s.address)
	if word, err := ask(t, c, "7"); err != nil || !word.Live || word.Broadcast != "881" {
		t.Fatalf("well: %+v %v", word, err)
	}
	wantError := func(how string) {
		t.Helper()
		word, err := ask(t, c, "7")
		if err == nil || !word.Live || word.Broadcast != "881" {
			t.Errorf("%s: got %+v (%v), want an error and the last word", how, word, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes: %.100s", how, len(err.Error()), err)
		}
		if word, err := ask(t, c, "9"); err == nil || word.Live || !word.At.IsZero() {
			t.Errorf("%s, of somebody unheard of: got %+v (%v), want an error and no word", how, word, err)
		}
	}
	for how, misbehave := range misbehaviours {
		s.fails(misbehave)
		wantError(how)
	}
	s.fails(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+s.address+"/elsewhere", http.StatusTemporaryRedirect)
	})
	wantError("redirecting")
	s.fails(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2<<20)) })
	wantError("with huge headers")
	s.isWell()
	s.down()
	wantError("down")
	s.up()
	s.live("7", 0)
	if word, err := ask(t, c, "7"); err != nil || word.Live {
		t.Errorf("well again, and not live: %+v %v", word, err)
	}
}
