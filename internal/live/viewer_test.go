package live

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// viewer is a page that follows a room, with a reader of server-sent events of
// its own. It holds what comes against all that a presenter's page would.
type viewer struct {
	client
	status int
	header http.Header
	code   chat.Code // of the refusal, with a status that is not 200

	// Guarded by client.mu.
	retry    string
	comments int
	skips    int
	lastID   int64 // what a browser would come back with; -1 before the first
	said     *wire.Error
	over     time.Time // when the stream ended; zero while it is open
}

// following is how a viewer follows. The zero value is anonymous, in the room 7,
// at the first node, and wants what is new.
type following struct {
	node    int
	room    string // "" means "7"
	token   string
	address string
	after   *int64
	lastID  *int64
	from    *viewer // the page comes back: with its cursor, and held against what it has
	log     string
	running bool
	deaf    bool
	pause   time.Duration
}

// serveViewer is what the HTTP face does.
func (n *node) serveViewer(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	a := Following{Room: q.Get("room"), Log: q.Get("log"), Lang: chat.English, Address: q.Get("address"), Running: q.Has("running")}
	err := error(nil)
	if raw := req.Header.Get("Token"); raw != "" {
		var user chat.User
		user, err = verify(raw)
		a.User = &user
	}
	for _, text := range []string{q.Get("after"), req.Header.Get("Last-Event-ID")} {
		if seq, err := strconv.ParseInt(text, 10, 64); err == nil {
			a.After = &seq
		}
	}
	if err == nil {
		err = n.hub.Follow(w, req, a)
	}
	var ref *chat.Refusal
	if errors.As(err, &ref) {
		w.Header().Set("Code", string(ref.Code))
		w.Header().Set("Retry-After", ref.RetryAfter.String())
		w.WriteHeader(chat.Lookup(ref.Code).Status)
	} else if err != nil {
		n.rig.t.Errorf("follow: %v", err)
	}
}

// follow opens a stream and waits until all that is due has come.
func (r *rig) follow(d following) *viewer {
	r.t.Helper()
	if d.room == "" {
		d.room = "7"
	}
	if d.from != nil {
		if id := d.from.id(); id >= 0 {
			d.lastID = &id
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	url := fmt.Sprintf("http://node/?room=%s&address=%s&log=%s", d.room, d.address, d.log)
	if d.running {
		url += "&running"
	}
	if d.after != nil {
		url += fmt.Sprint("&after=", *d.after)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if d.token != "" {
		req.Header.Set("Token", d.token)
	}
	if d.lastID != nil {
		req.Header.Set("Last-Event-ID", fmt.Sprint(*d.lastID))
	}
	resp, err := r.nodes[d.node].dialer.Do(req)
	if err != nil {
		r.t.Fatalf("follow room %s: %v", d.room, err)
	}
	v := &viewer{client: client{t: r.t, room: d.room, known: r.known, gate: make(chan struct{}, 1), quit: cancel, left: ctx.Done(), pause: d.pause, last: -1},
		status: resp.StatusCode, header: resp.Header, code: chat.Code(resp.Header.Get("Code")), lastID: -1}
	r.viewers = append(r.viewers, v)
	if v.status != http.StatusOK {
		cancel()
		resp.Body.Close()
		return v
	}
	if d.lastID != nil {
		v.last, v.lastID = *d.lastID, *d.lastID
	}
	if !d.deaf {
		v.listen()
	}
	go v.read(resp)
	synctest.Wait()
	return v
}

func (v *viewer) drop() { v.quit() }

func (v *viewer) read(resp *http.Response) {
	defer resp.Body.Close()
	defer func() {
		v.mu.Lock()
		v.over = time.Now()
		v.mu.Unlock()
	}()
	lines := bufio.NewReader(resp.Body)
	for {
		select {
		case <-v.gate:
			v.gate <- struct{}{}
		case <-v.left:
			return
		}
		fields, err := readEvent(lines)
		if err != nil {
			return
		}
		v.takeEvent(fields)
		select {
		case <-time.After(v.pause):
		case <-v.left:
		}
	}
}

// readEvent reads the fields up to an empty line. A comment has no name.
func readEvent(r *bufio.Reader) (map[string]string, error) {
	fields := map[string]string{}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			return fields, nil
		}
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimPrefix(value, " ")
	}
}

func (v *viewer) takeEvent(fields map[string]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if retry, ok := fields["retry"]; ok {
		v.retry = retry
	}
	if _, ok := fields[""]; ok {
		v.comments++
	}
	if id, ok := fields["id"]; ok {
		v.takeIDLocked(id, fields["event"])
	}
	data, ok := fields["data"]
	if !ok {
		return
	}
	f, p, err := v.known.open([]byte(data))
	if err != nil {
		v.t.Errorf("room %s: frame %q: %v", v.room, data, err)
	}
	switch f := f.(type) {
	case wire.Events:
		v.takeEventsLocked(f, p, len(data))
	case wire.Skipped:
		if f.To <= v.last {
			v.t.Errorf("room %s: skipped to %d, which is not beyond %d", v.room, f.To, v.last)
		}
		v.last = f.To
		v.skips++
	case wire.Error:
		v.said = &f
	}
	want := map[string]bool{"events": true, "skipped": true}[fields["event"]]
	if want && v.last != v.lastID {
		v.t.Errorf("room %s: an event with id %d ends at %d", v.room, v.lastID, v.last)
	}
	if _, isError := f.(wire.Error); want == isError || isError != (fields["event"] == "error") {
		v.t.Errorf("room %s: event %q with %s", v.room, fields["event"], data)
	}
}

func (v *viewer) takeIDLocked(text, event string) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < v.lastID {
		v.t.Errorf("room %s: id %q after %d", v.room, text, v.lastID)
	}
	v.lastID = id
	if event == "" { // the cursor that it starts with
		if v.last >= 0 && id != v.last {
			v.t.Errorf("room %s: starts at %d, want %d", v.room, id, v.last)
		}
		v.last = id
	}
}

// id is what the browser would come back with.
func (v *viewer) id() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.lastID
}

// state is what the viewer has seen of the stream itself.
func (v *viewer) state() (comments, skips int, said *wire.Error, over time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.comments, v.skips, v.said, v.over
}

func (v *viewer) wantOpen(when string) {
	v.t.Helper()
	if _, _, said, over := v.state(); !over.IsZero() || v.status != 200 {
		v.t.Errorf("%s: the stream of room %s has ended (status %d, error %v), want it open", when, v.room, v.status, said)
	}
}

// wantEnded fails unless the stream has ended after an error that says why.
func (v *viewer) wantEnded(when string, code chat.Code) {
	v.t.Helper()
	_, _, said, over := v.state()
	switch {
	case over.IsZero():
		v.t.Errorf("%s: the stream is open, want it ended by %s", when, code)
	case said == nil:
		v.t.Errorf("%s: the stream has ended without a word, want %s", when, code)
	case said.Code != string(code) || said.Detail == "":
		v.t.Errorf("%s: the stream has ended by %s (%q), want %s and a sentence", when, said.Code, said.Detail, code)
	}
}

func (v *viewer) wantRefused(when string, code chat.Code) {
	v.t.Helper()
	if v.code != code || v.status != chat.Lookup(code).Status {
		v.t.Errorf("%s: got status %d, code %q, want %d %s", when, v.status, v.code, chat.Lookup(code).Status, code)
	}
}
