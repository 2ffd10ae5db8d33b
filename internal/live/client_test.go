package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/spec/spectest"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// client is a presenter's page, over another WebSocket library than the
// server's. It holds every frame against what all frames promise: signed, small
// enough, of its room, and each seq once, in order, with no gap.
type client struct {
	t     *testing.T
	room  string
	ws    *websocket.Conn
	known *knownFrames
	gate  chan struct{} // holds one value while the page reads
	quit  func()        // ends read, also while the page does not read
	left  <-chan struct{}
	pause time.Duration

	mu     sync.Mutex
	silent bool               // does not answer heartbeats
	got    []wire.ServerFrame // all but events
	events []chat.Event
	sizes  []int // events in each frame of events
	last   int64 // the cursor: everything up to here has come or was skipped; -1 before the first
	end    closing
}

// closing is how a connection ended.
type closing struct {
	code wire.CloseCode // 1006: with no close frame
	when time.Time
}

// dialing is how a page connects. The zero value has a good token of user 7 in
// its header, at the first node.
type dialing struct {
	node   int
	user   string // "" means "7"
	token  string // "" means a fresh one of the user
	frame  bool   // the token comes in a start frame
	after  *int64
	from   *client       // the page connects again: with its cursor, and held against what it has
	log    string        // with frame
	role   string        // with frame
	mute   bool          // nothing is sent after the upgrade
	silent bool          // heartbeats are not answered
	deaf   bool          // nothing is read
	pause  time.Duration // after each frame, before the next is read
}

func seqOf(seq int64) *int64 { return &seq }

// dial opens a link and does not wait for what comes over it.
func (r *rig) dial(d dialing) *client {
	r.t.Helper()
	if d.user == "" {
		d.user = "7"
	}
	if d.token == "" {
		d.token = freshToken(d.user)
	}
	last := int64(-1)
	if d.from != nil {
		if last = d.from.cursor(); last >= 0 {
			d.after = &last
		}
	}
	n := r.nodes[d.node]
	url, header := "ws://node/v1/presenter", http.Header{}
	if !d.frame && !d.mute {
		header.Set("Token", d.token)
		if d.after != nil {
			url += fmt.Sprintf("?after=%d&log=%s", *d.after, d.log)
		}
	}
	ws, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{HTTPClient: n.dialer, HTTPHeader: header})
	if err != nil {
		r.t.Fatalf("dial as %s: %v", d.user, err)
	}
	left, quit := context.WithCancel(context.Background())
	c := &client{t: r.t, room: d.user, ws: ws, known: r.known, gate: make(chan struct{}, 1), quit: quit, left: left.Done(), silent: d.silent, pause: d.pause, last: last}
	r.clients = append(r.clients, c)
	if !d.deaf {
		c.listen()
	}
	go c.read()
	if d.frame {
		c.send(wire.Start{Token: d.token, After: d.after, Log: d.log, Role: d.role})
	}
	return c
}

// connect opens a link and waits until all that is due has come.
func (r *rig) connect(d dialing) *client {
	r.t.Helper()
	c := r.dial(d)
	synctest.Wait()
	return c
}

// listen makes the page read; deafen makes it stop, after at most the frame it
// is waiting for. Both are for moments when nothing is under way.
func (c *client) listen() {
	select {
	case c.gate <- struct{}{}:
	default: // it does
	}
}

func (c *client) deafen() {
	select {
	case <-c.gate:
	default: // it does not
	}
}

// hush makes the page answer heartbeats no more, or again.
func (c *client) hush(silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = silent
}

func (c *client) read() {
	for {
		select {
		case <-c.gate:
			c.gate <- struct{}{}
		case <-c.left:
			return
		}
		kind, data, err := c.ws.Read(context.Background())
		if err != nil {
			c.ended(err)
			return
		}
		if kind != websocket.MessageText {
			c.t.Errorf("room %s: a binary message from the server", c.room)
		}
		c.take(data)
		select {
		case <-time.After(c.pause):
		case <-c.left:
		}
	}
}

func (c *client) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = closing{code: 1006, when: time.Now()}
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		c.end.code = wire.CloseCode(ce.Code)
		if want := c.end.code.String(); ce.Reason != want {
			c.t.Errorf("room %s: closed with reason %q, want %q", c.room, ce.Reason, want)
		}
	}
}

func (c *client) take(data []byte) {
	f, p, err := c.known.open(data)
	if err != nil {
		c.t.Errorf("room %s: frame %q: %v", c.room, data, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) < documented {
		spectest.Frame(c.t, "/v1/presenter", spectest.Server, data)
	}
	switch f := f.(type) {
	case wire.Events:
		c.takeEventsLocked(f, p, len(data))
		return
	case wire.Skipped:
		if f.To <= c.last {
			c.t.Errorf("room %s: skipped to %d, which is not beyond %d", c.room, f.To, c.last)
		}
		c.last = f.To
	case wire.Heartbeat:
		if !c.silent {
			go c.send(wire.Heartbeat{})
		}
	}
	c.got = append(c.got, f)
}

// documented is how many frames of a page are held against the document. Seeded
// runs have thousands, of the same few shapes.
const documented = 20

// payload is the JSON that the server signs.
type payload struct {
	Room   string       `json:"room"`
	Log    string       `json:"log"`
	Events []chat.Event `json:"events"`
}

// knownFrames are the frames of events that any client was sent. The same bytes
// are decoded and verified once, which takes most of a test's time.
type knownFrames struct {
	keys seal.KeySet

	mu   sync.Mutex
	good map[string]knownFrame // guarded by mu
}

type knownFrame struct {
	frame   wire.ServerFrame
	payload payload
}

func (k *knownFrames) open(data []byte) (wire.ServerFrame, payload, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if known, ok := k.good[string(data)]; ok {
		return known.frame, known.payload, nil
	}
	f, err := wire.DecodeServer(data)
	events, ok := f.(wire.Events)
	if err != nil || !ok {
		return f, payload{}, err
	}
	if err := k.keys.Verify(events.KID, events.Sig, []byte(events.Payload)); err != nil {
		return f, payload{}, err
	}
	var p payload
	if err := json.Unmarshal([]byte(events.Payload), &p); err != nil {
		return f, p, err
	}
	k.good[string(data)] = knownFrame{f, p}
	return f, p, nil
}

func (c *client) takeEventsLocked(f wire.Events, p payload, size int) {
	if size > wire.MaxEventsFrame {
		c.t.Errorf("room %s: a frame of %d bytes, want at most %d", c.room, size, wire.MaxEventsFrame)
	}
	if p.Room != c.room || p.Log == "" || len(p.Events) == 0 {
		c.t.Errorf("room %s: payload of room %q, log %q, %d events", c.room, p.Room, p.Log, len(p.Events))
	}
	for _, e := range p.Events {
		if c.last >= 0 && e.Seq != c.last+1 {
			c.t.Errorf("room %s: seq %d after %d", c.room, e.Seq, c.last)
		}
		c.last = e.Seq
		c.events = append(c.events, e)
	}
	c.sizes = append(c.sizes, len(p.Events))
	c.got = append(c.got, f)
}

// send writes a frame. That the connection has ended meanwhile is for the test
// to find, if it matters.
func (c *client) send(f wire.ClientFrame) { c.write(websocket.MessageText, wire.Encode(f)) }

func (c *client) write(kind websocket.MessageType, data []byte) {
	_ = c.ws.Write(context.Background(), kind, data)
}

// drop ends the connection as a network does, with no goodbye.
func (c *client) drop() {
	c.quit()
	_ = c.ws.CloseNow()
}

func (c *client) closed() (closing, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end, c.end.code != 0
}

// seqs are those that came, in the order in which they came.
func (c *client) seqs() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	seqs := make([]int64, len(c.events))
	for i, e := range c.events {
		seqs[i] = e.Seq
	}
	return seqs
}

// cursor is what the page would reconnect with.
func (c *client) cursor() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// texts are the lines that came.
func (c *client) texts() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var texts []string
	for _, e := range c.events {
		if e.Kind == chat.KindMessage {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func (c *client) kinds() []chat.Kind {
	c.mu.Lock()
	defer c.mu.Unlock()
	kinds := make([]chat.Kind, len(c.events))
	for i, e := range c.events {
		kinds[i] = e.Kind
	}
	return kinds
}

// framesOf are those of one type that came, in order.
func framesOf[F wire.ServerFrame](c *client) []F {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []F
	for _, f := range c.got {
		if f, ok := f.(F); ok {
			all = append(all, f)
		}
	}
	return all
}

// welcomed gives the welcome, which there must be.
func (c *client) welcomed() wire.Welcome {
	c.t.Helper()
	all := framesOf[wire.Welcome](c)
	if len(all) != 1 {
		end, _ := c.closed()
		c.t.Fatalf("got %d welcomes among %v, and an end %v; want one", len(all), c.got, end)
	}
	return all[0]
}

// wantOpen fails when the link has ended.
func (c *client) wantOpen(when string) {
	c.t.Helper()
	if end, closed := c.closed(); closed {
		c.t.Errorf("%s: the link was closed with %d (%s), want it open", when, end.code, end.code)
	}
}

// wantRun fails unless exactly the seqs first … last have come.
func (c *client) wantRun(when string, first, last int64) {
	c.t.Helper()
	seqs := c.seqs()
	if int64(len(seqs)) != last-first+1 || len(seqs) > 0 && (seqs[0] != first || seqs[len(seqs)-1] != last) {
		c.t.Errorf("%s: got %s, want %d to %d", when, describe(seqs), first, last)
	}
}

func describe(seqs []int64) string {
	if len(seqs) == 0 {
		return "no seqs"
	}
	return fmt.Sprintf("%d seqs, %d to %d", len(seqs), seqs[0], seqs[len(seqs)-1])
}

// wantClosed fails unless the link was closed with a code, after an error frame
// that was the last thing said; it returns that frame.
func (c *client) wantClosed(when string, code wire.CloseCode, refusal chat.Code) wire.Error {
	c.t.Helper()
	end, closed := c.closed()
	if !closed {
		c.t.Fatalf("%s: the link is open, want it closed with %d (%s)", when, code, code)
	}
	if end.code != code {
		c.t.Errorf("%s: closed with %d (%s), want %d (%s)", when, end.code, end.code, code, code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) == 0 {
		c.t.Fatalf("%s: closed without a word, want an error frame %s before", when, refusal)
	}
	last, ok := c.got[len(c.got)-1].(wire.Error)
	switch {
	case !ok:
		c.t.Errorf("%s: the last frame is %#v, want an error %s", when, c.got[len(c.got)-1], refusal)
	case last.Code != string(refusal) || last.Detail == "":
		c.t.Errorf("%s: the error frame says %q (%q), want %s and a sentence", when, last.Code, last.Detail, refusal)
	}
	spectest.Close(c.t, "/v1/presenter", int(end.code), last.Code)
	return last
}
