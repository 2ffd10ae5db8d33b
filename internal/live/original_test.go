package live

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/chatlog/logtest"
)

// app is a presenter's app of the original platform.
type app struct {
	ws *websocket.Conn

	mu    sync.Mutex
	said  []string // messages of its lines
	other []string // other frames, whole
	code  websocket.StatusCode
}

// original opens a link as the app of user 7 does; inHeader says who it is in a
// header already, as a gateway does.
func (r *rig) original(inHeader bool, start string) *app {
	r.t.Helper()
	header := http.Header{}
	if inHeader {
		header.Set("Token", freshToken("7"))
	}
	ws, _, err := websocket.Dial(context.Background(), "ws://node/chatting", &websocket.DialOptions{HTTPClient: r.nodes[0].dialer, HTTPHeader: header})
	if err != nil {
		r.t.Fatal(err)
	}
	a := &app{ws: ws}
	r.t.Cleanup(func() { _ = ws.CloseNow() })
	go a.read()
	if start != "" {
		a.send(r.t, start)
	}
	synctest.Wait()
	return a
}

func startOf(token string) string { return `{"id":"start","token":"` + token + `"}` }

func (a *app) send(t *testing.T, frame string) {
	t.Helper()
	if err := a.ws.Write(context.Background(), websocket.MessageText, []byte(frame)); err != nil {
		t.Error(err)
	}
}

func (a *app) read() {
	for {
		_, data, err := a.ws.Read(context.Background())
		a.mu.Lock()
		if err != nil {
			a.code = websocket.CloseStatus(err)
			a.mu.Unlock()
			return
		}
		var line struct{ ID, Message string }
		if json.Unmarshal(data, &line) == nil && line.ID == "sendChatting" {
			a.said = append(a.said, line.Message)
		} else {
			a.other = append(a.other, string(data))
		}
		a.mu.Unlock()
	}
}

func (a *app) want(t *testing.T, what string, lines ...string) {
	t.Helper()
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.said, lines) {
		t.Errorf("%s: got %q, want %q (and %q, code %d)", what, a.said, lines, a.other, a.code)
	}
}

func (a *app) gone(r *rig) {
	_ = a.ws.CloseNow()
	r.pass(time.Second)
}

// memory is a log whose rows have the times of the bubble.
func memory() setup { return setup{log: logtest.NewMemory("M")} }

// The app has no cursor; what it is sent goes on where its last link stood, also
// when that was quiet for longer than its place is kept.
func TestOriginalGoesOnWhereItStood(t *testing.T) {
	inBubble(t, memory(), func(t *testing.T, r *rig) {
		first := r.original(false, startOf(freshToken("7")))
		first.want(t, "nothing was said yet")
		first.gone(r)
		r.say("7", "one, while away")
		second := r.original(false, startOf(freshToken("7")))
		second.want(t, "after a link that was sent nothing", "one, while away")
		r.pass(2 * rememberOriginal)
		second.gone(r)
		r.say("7", "two, while away")
		third := r.original(false, startOf(freshToken("7")))
		third.want(t, "after a link that was quiet for long", "two, while away")
		third.gone(r)
	})
}

func TestOriginalForgetsAPlace(t *testing.T) {
	s := memory()
	s.desk = func(o *chat.DeskOptions) { o.QueueFor = time.Hour }
	inBubble(t, s, func(t *testing.T, r *rig) {
		first := r.original(false, startOf(freshToken("7")))
		r.say("7", "seen")
		first.want(t, "linked", "seen")
		ours := r.connect(dialing{})
		r.say("7", "said while the other app was linked")
		r.pass(2 * rememberOriginal)
		ours.drop()
		r.pass(time.Second)
		r.say("7", "said to nobody")
		r.original(false, startOf(freshToken("7"))).want(t, "after 20 minutes", "said to nobody")
	})
}

// What was taken before the first link of a process was shown to nobody.
func TestOriginalIsSentWhatWaited(t *testing.T) {
	inBubble(t, memory(), func(t *testing.T, r *rig) {
		openBroadcast(t, r.log, "7", "881")
		r.pass(time.Second)
		r.say("7", "one")
		r.say("7", "two")
		r.original(false, startOf(freshToken("7"))).want(t, "the first link", "one", "two")
	})
	inBubble(t, memory(), func(t *testing.T, r *rig) {
		before := chat.Row{ID: "881", Idem: "881", Kind: chat.KindBroadcast, Broadcast: "881", At: bubbleEpoch.Add(-time.Minute),
			Details: chat.Details{State: chat.BroadcastStarted}}
		line := lineOf(2)
		line.At = bubbleEpoch.Add(-time.Second)
		if _, err := r.log.Append(context.Background(), "7", 0, []chat.Row{before, line}); err != nil {
			t.Fatal(err)
		}
		r.say("7", "since the start")
		// The line of the process before was for its own links.
		r.original(false, startOf(freshToken("7"))).want(t, "after a restart", "since the start")
	})
}

// The app sends its start also where a header said already who it is.
func TestOriginalStartBesideAHeader(t *testing.T) {
	const reject = `{"id":"tokenException","response":"reject","message":"Jwt Exception"}`
	for name, c := range map[string]struct {
		start string
		ends  bool
	}{
		"the same user":    {startOf(freshToken("7")), false},
		"no token":         {startOf(""), false},
		"another frame":    {`{"id":"hello"}`, false},
		"no JSON":          {"ping", false},
		"another user":     {startOf(freshToken("8")), true},
		"an expired token": {startOf(tokenFor("7", time.Unix(1, 0))), true},
	} {
		inBubble(t, memory(), func(t *testing.T, r *rig) {
			a := r.original(true, c.start)
			r.pass(time.Second)
			a.mu.Lock()
			defer a.mu.Unlock()
			if ended := a.code == 4501 || a.code == 4005; ended != c.ends || c.ends != slices.Equal(a.other, []string{reject}) {
				t.Errorf("%s: got %q, code %d; want an end: %v", name, a.other, a.code, c.ends)
			}
		})
	}
}
