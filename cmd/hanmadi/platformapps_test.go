package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// The apps of the platform under test: two that speak as the original's do, and
// two that speak as ours.

// viewer is an app that says lines, one after another, while it may.
type viewer struct {
	name string
	say  func(v *viewer, text, key string) verdict

	mu       sync.Mutex
	token    string         // guarded by mu
	answered []string       // guarded by mu: lines answered with success, in order
	refused  []string       // guarded by mu: lines that were surely not logged
	codes    map[string]int // guarded by mu: of refusals
	faults   []string       // guarded by mu
}

// verdict is what became of a line, as far as its sender can tell.
type verdict struct {
	logged bool
	code   string // of a refusal; with logged false and "" nobody knows
	fault  string // an answer that must not be
}

func (v *viewer) setToken(token string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.token = token
}

func (v *viewer) bearer() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.token
}

func (v *viewer) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.answered)
}

// oldViewer posts to /send/message. It has no key: what it gets no answer for,
// it forgets.
func (p *platform) oldViewer(token string) *viewer {
	return &viewer{name: "old", token: token, codes: map[string]int{}, say: func(v *viewer, text, _ string) verdict {
		return p.oldSay(text, "Token", v.bearer())
	}}
}

func (p *platform) oldSay(text string, headers ...string) verdict {
	got := p.post(p.gateway.url("/send/message"), `{"presenterIdx":7,"userType":"viewer","textMessage":"`+text+`"}`, headers...)
	var old struct {
		Timestamp, Message, Path string
		Status                   int
	}
	switch {
	case got.status == http.StatusOK && got.body == "":
		return verdict{logged: true}
	case got.status == 0 || got.status == http.StatusBadGateway || got.status == http.StatusGatewayTimeout:
		return verdict{}
	case json.Unmarshal([]byte(got.body), &old) != nil || got.status != http.StatusBadRequest || old.Status != got.status || old.Path != "/send/message":
		return verdict{fault: fmt.Sprintf("got %d %q", got.status, got.body)}
	case old.Message == "전송 결과를 확인하고 있습니다. 같은 메시지를 새로 보내지 마세요.":
		return verdict{}
	}
	return verdict{code: old.Message}
}

// newViewer posts with a session's cookie and a key, and asks again under that
// key until it knows.
func (p *platform) newViewer(session string) *viewer {
	return &viewer{name: "new", codes: map[string]int{}, say: func(_ *viewer, text, key string) verdict {
		got := p.post(p.gateway.url(linePath), `{"text":"`+text+`"}`, "Cookie", "session="+session, "Idempotency-Key", key)
		switch code := got.refusal.Code; {
		case got.status == http.StatusCreated:
			return verdict{logged: true}
		case code != "" && code != "log.outcome_unknown" && code != "idempotency.in_flight" && code != "internal":
			return verdict{code: code}
		case got.status == 0 || got.status >= 500:
			return verdict{}
		default:
			return verdict{fault: fmt.Sprintf("got %d %q", got.status, got.body)}
		}
	}}
}

// run says lines until ctx ends; the line under way is brought to its end.
func (v *viewer) run(ctx context.Context, next *atomic.Int64) {
	for ctx.Err() == nil {
		text := fmt.Sprintf("%s 줄 %d", v.name, next.Add(1))
		got := v.say(v, text, strings.ReplaceAll(text, " 줄 ", "-"))
		for try := 0; v.name == "new" && got == (verdict{}) && try < 600; try++ {
			pause(context.Background(), 25*time.Millisecond)
			got = v.say(v, text, strings.ReplaceAll(text, " 줄 ", "-"))
		}
		v.note(text, got)
		pause(ctx, 40*time.Millisecond) // a link without a cursor starts 1,000 rows back at most: the day must fit
	}
}

func (v *viewer) note(text string, got verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case got.fault != "":
		v.faults = append(v.faults, text+": "+got.fault)
	case got.logged:
		v.answered = append(v.answered, text)
	case got.code != "":
		v.refused = append(v.refused, text)
		v.codes[got.code]++
	}
}

// presenterApp is a presenter's app, of either kind. While it is on it opens its link
// again whenever that breaks, unless it was told to stay away.
type presenterApp struct {
	p     *platform
	link  func(a *presenterApp, ctx context.Context) error
	keys  publicKeys
	token string

	mu     sync.Mutex
	lines  []string        // guarded by mu: what was said, as seen
	cursor int64           // guarded by mu: of the new app; -1 before the first row
	faults []string        // guarded by mu
	ends   []int           // guarded by mu: close codes
	told   string          // guarded by mu: the old app's last word before a close
	conn   *websocket.Conn // guarded by mu: of the new app, the last

	off  context.CancelFunc // nil while off
	done chan struct{}
}

func (p *platform) oldApp(token string) *presenterApp {
	return &presenterApp{p: p, token: token, link: (*presenterApp).oldLink}
}

func (p *platform) newApp(token string) *presenterApp {
	return &presenterApp{p: p, token: token, link: (*presenterApp).newLink, cursor: -1, keys: fetchPublicKeys(p.t, p.hanmadi)}
}

// on turns the app on. again is how it waits before it opens another link.
func (a *presenterApp) on(again func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(a.p.t.Context())
	a.off, a.done = cancel, make(chan struct{})
	a.p.t.Cleanup(a.turnOff)
	go func() {
		defer close(a.done)
		for ctx.Err() == nil {
			code := closeCode(a.link(a, ctx))
			a.mu.Lock()
			a.ends = append(a.ends, code)
			a.mu.Unlock()
			if code >= 4500 {
				return
			}
			again(ctx)
		}
	}()
}

// atOnce is how an app comes back that noticed by itself.
func atOnce(ctx context.Context) { pause(ctx, 20*time.Millisecond) }

func (a *presenterApp) turnOff() {
	if a.off != nil {
		a.off()
		<-a.done
		a.off = nil
	}
}

// sentAway waits until the app was told to stay away.
func (a *presenterApp) sentAway(t *testing.T) {
	t.Helper()
	eventually(t, "the app is replaced", func() bool {
		select {
		case <-a.done:
			return true
		default:
			return false
		}
	})
	a.off()
	a.off = nil
}

// cut breaks the app's link, with no goodbye.
func (a *presenterApp) cut() {
	before, _ := a.endings()
	eventually(a.p.t, "the link is cut", func() bool {
		a.mu.Lock()
		conn := a.conn // of now: the app may be coming back from another end
		a.mu.Unlock()
		_ = conn.CloseNow() // whatever it is in
		ends, _ := a.endings()
		return len(ends) > len(before)
	})
}

// endings are the close codes of the app's links, and its last word before one.
func (a *presenterApp) endings() (codes []int, told string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ends), a.told
}

func (a *presenterApp) wantFaultless() {
	a.p.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.faults) > 0 {
		a.p.t.Errorf("an app got what it must not: %q", a.faults)
	}
}

func (a *presenterApp) fault(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, fmt.Sprintf(format, args...))
}

func (a *presenterApp) seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.lines)
}

// forget drops what the app has seen.
func (a *presenterApp) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = nil
}

// oldLink is a /chatting socket: start, then lines, byte for byte.
func (a *presenterApp) oldLink(ctx context.Context) error {
	conn, _, err := websocket.Dial(ctx, "ws://"+a.p.gateway.address+"/chatting", nil)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"id":"start","token":"`+a.token+`"}`)); err != nil {
		return err
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var f struct{ ID, Nickname, Message, Time string }
		if err := json.Unmarshal(data, &f); err != nil {
			a.fault("%q: %v", data, err)
			continue
		}
		if f.ID != "sendChatting" {
			a.mu.Lock()
			a.told = string(data)
			a.mu.Unlock()
			continue
		}
		want := fmt.Sprintf(`{"id":"sendChatting","nickname":%q,"message":%q,"time":%q}`, f.Nickname, f.Message, f.Time)
		if _, err := time.Parse("15:04", f.Time); err != nil || string(data) != want {
			a.fault("got %s, want %s", data, want)
		}
		a.mu.Lock()
		a.lines = append(a.lines, f.Message)
		a.mu.Unlock()
	}
}

// newLink is a /v1/presenter link, with the token as a subprotocol and the
// cursor in the query.
func (a *presenterApp) newLink(ctx context.Context) error {
	a.mu.Lock()
	query := ""
	if a.cursor >= 0 {
		query = "?after=" + strconv.FormatInt(a.cursor, 10)
	}
	a.mu.Unlock()
	conn, _, err := websocket.Dial(ctx, "ws://"+a.p.gateway.address+"/v1/presenter"+query, &websocket.DialOptions{
		Subprotocols: []string{"hanmadi", a.token}, HTTPHeader: http.Header{"Origin": {"http://" + a.p.gateway.address}}})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	a.mu.Lock()
	a.conn = conn
	a.mu.Unlock()
	conn.SetReadLimit(64 << 10)
	l := &linkClient{conn: conn}
	for {
		f, err := l.next(ctx)
		if err != nil {
			return err
		}
		if f.Type == "events" {
			a.take(f)
		}
	}
}

func (a *presenterApp) take(f frame) {
	content, err := a.keys.open(f)
	if err != nil {
		a.fault("%v", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range content.Events {
		if a.cursor >= 0 && e.Seq != a.cursor+1 {
			a.faults = append(a.faults, fmt.Sprintf("after #%d came #%d", a.cursor, e.Seq))
		}
		a.cursor = e.Seq
		if e.Kind == "message" {
			a.lines = append(a.lines, e.Text)
		}
	}
}

// whenCalled is how an app comes back that the signalling server has to call: its
// page listens there, and goes on listening when that server was away.
func (a *presenterApp) whenCalled(ctx context.Context) {
	for ctx.Err() == nil && !a.called(ctx) {
		pause(ctx, 20*time.Millisecond)
	}
}

func (a *presenterApp) called(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.p.signalling.address+"/pages/7", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if lines.Text() == "event: reconnect" {
			return true
		}
	}
	return false
}
