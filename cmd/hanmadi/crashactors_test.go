package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// sender is somebody who talks, one line after another. What it has said
// belongs to its goroutine until that has ended.
type sender struct {
	chaos             *chaos
	user, room, token string
	random            *rand.Rand
	said              []*utterance
}

// utterance is a line and everything its sender was told about it.
type utterance struct {
	room, user, text string
	key              string     // Idempotency-Key, "" for none
	lost             int        // requests that got no answer
	receipt          *answer201 // of the first 201
	refused          string     // code of the refusal at which the sender gave up
}

// knownRefusals are the answers other than 201 that a sender must be prepared
// for while the server is killed and presenters come and go, with their status.
var knownRefusals = map[string]int{
	"presenter.disconnected": 503, "broadcast.ended": 410, "idempotency.in_flight": 409,
	"log.unavailable": 503, "log.outcome_unknown": 504, "overloaded": 503,
}

// between is a random time, for pauses.
func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}

func (s *sender) run() {
	for n := 1; ; n++ {
		select {
		case <-s.chaos.hush:
			return
		case <-s.chaos.ctx.Done():
			return
		case <-time.After(between(s.random, 20*time.Millisecond, 200*time.Millisecond)):
		}
		u := &utterance{room: s.room, user: s.user, text: fmt.Sprintf(`%s의 %d번째 말 "%x" <b> \ 끝`, s.user, n, s.random.Uint32())}
		if s.random.IntN(10) > 0 {
			u.key = fmt.Sprintf("%s-%d", s.user, n)
		}
		s.said = append(s.said, u)
		s.utter(u)
		if s.random.IntN(20) == 0 {
			s.repeat(s.said[s.random.IntN(len(s.said))])
		}
	}
}

// utter says a line until its outcome is known, or cannot be: a line without a
// key whose answer was lost is not sent again.
func (s *sender) utter(u *utterance) {
	for {
		got, code, err := s.ask(u)
		switch {
		case s.chaos.ctx.Err() != nil:
			return
		case err != nil:
			u.lost++
			s.chaos.lost.Add(1)
			if u.key == "" {
				return
			}
		case code == "":
			u.receipt = &got
			s.chaos.answered.Add(1)
			return
		case code == "log.outcome_unknown" && u.key == "":
			u.lost++
			return
		case code == "idempotency.in_flight" || code == "log.outcome_unknown": // ask again
		case s.random.IntN(2) == 0:
			u.refused = code
			return
		}
		if !pause(s.chaos.ctx, between(s.random, 20*time.Millisecond, 300*time.Millisecond)) {
			return
		}
	}
}

// repeat sends a line again that was answered before, perhaps by a process that
// is no more, and wants the same answer.
func (s *sender) repeat(u *utterance) {
	if u.key == "" || u.receipt == nil {
		return
	}
	got, code, err := s.ask(u)
	switch {
	case err != nil:
	case code != "":
		if !strings.HasPrefix(code, "log.") && code != "overloaded" {
			s.chaos.fault("%s repeated %q, which was logged as #%d, and was refused: %s", s.user, u.text, u.receipt.Seq, code)
		}
	case got.ID != u.receipt.ID || got.Seq != u.receipt.Seq || got.At != u.receipt.At || got.Text != u.receipt.Text:
		s.chaos.fault("%s repeated %q: got %+v, want the first answer %+v", s.user, u.text, got, *u.receipt)
	}
}

// ask sends a line once: a receipt, or the code of a refusal, or an error when
// no whole answer came.
func (s *sender) ask(u *utterance) (got answer201, code string, err error) {
	body, err := json.Marshal(map[string]string{"text": u.text})
	if err != nil {
		return got, "", err
	}
	url := s.chaos.server.url("/v1/rooms/" + u.room + "/messages")
	req, err := http.NewRequestWithContext(s.chaos.ctx, http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		return got, "", err
	}
	req.GetBody = nil // net/http would repeat requests with a key by itself, uncounted
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	if u.key != "" {
		req.Header.Set("Idempotency-Key", u.key)
	}
	resp, err := s.chaos.client.Do(req)
	if err != nil {
		return got, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return got, "", err
	}
	if resp.StatusCode == http.StatusCreated {
		return got, "", json.Unmarshal(data, &got)
	}
	return got, s.refusal(u, resp.StatusCode, data), nil
}

// refusal counts a refusal and checks that it is one that may come.
func (s *sender) refusal(u *utterance, status int, body []byte) (code string) {
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || knownRefusals[p.Code] != status {
		s.chaos.fault("%s said %q: got status %d and %s (%v), want 201 or a refusal that is known here", s.user, u.text, status, body, err)
	}
	s.chaos.mu.Lock()
	s.chaos.refused[p.Code]++
	s.chaos.mu.Unlock()
	return p.Code
}

// presenter is a page that holds its room's link, loses it, and comes back
// where it stood. What it has seen belongs to its goroutine until that has
// ended or rests.
type presenter struct {
	chaos       *chaos
	room, token string
	random      *rand.Rand
	log         string // of the first welcome; set once, before welcomed
	seen        []event
	cursor      atomic.Int64 // last seq seen; stored after the row is in seen
	welcomed    atomic.Bool  // once
	here        atomic.Bool  // welcomed, and has not left since
}

func (p *presenter) run() {
	for p.chaos.ctx.Err() == nil {
		err := p.link()
		if code := closeCode(err); code >= 4500 {
			p.chaos.fault("presenter %s was closed with %d and would not come back: %v", p.room, code, err)
			return
		}
		var wrong protocolError
		if errors.As(err, &wrong) {
			p.chaos.fault("presenter %s at #%d: %v", p.room, p.cursor.Load(), err)
			return
		}
		away := between(p.random, 20*time.Millisecond, 250*time.Millisecond)
		if !p.chaos.isCalm() && p.random.IntN(8) == 0 {
			away = between(p.random, time.Second, 3*time.Second) // long enough for its broadcast to end
		}
		if !pause(p.chaos.ctx, away) {
			return
		}
	}
}

// protocolError is something that a server must never say.
type protocolError string

func (e protocolError) Error() string { return string(e) }

func (c *chaos) isCalm() bool {
	select {
	case <-c.calm:
		return true
	default:
		return false
	}
}

// link holds the room until the link breaks or the presenter leaves.
func (p *presenter) link() error {
	start := startFrame{Token: p.token}
	if p.welcomed.Load() {
		after := p.cursor.Load()
		start.After, start.Log = &after, p.log
	}
	l, err := dialLink(p.chaos.ctx, p.chaos.server.listen, start)
	if err != nil {
		return err
	}
	defer l.conn.CloseNow() // whatever still is open
	f, err := l.next(p.chaos.ctx)
	if err != nil {
		return err
	}
	if err := p.welcome(f); err != nil {
		return err
	}
	leave := p.leaveSome(l.conn)
	defer leave()
	for {
		f, err := l.next(p.chaos.ctx)
		if err != nil {
			return err
		}
		if err := p.take(f); err != nil {
			return err
		}
		if err := l.relayed(p.chaos.ctx, p.cursor.Load()); err != nil {
			return err
		}
	}
}

// leaveSome breaks a link after a random time, politely or not, unless the
// test has come to rest by then. The function it returns calls it off.
func (p *presenter) leaveSome(conn *websocket.Conn) (stay func()) {
	polite := p.random.IntN(2) == 0
	ctx, cancel := context.WithCancel(p.chaos.ctx)
	stays := between(p.random, 200*time.Millisecond, 4*time.Second)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if !pause(ctx, stays) {
			return
		}
		p.chaos.leaving.RLock()
		defer p.chaos.leaving.RUnlock()
		if p.chaos.isCalm() {
			return
		}
		p.here.Store(false)
		if polite {
			_ = conn.Close(websocket.StatusGoingAway, "reload") // the reader sees what comes of it
		} else {
			_ = conn.CloseNow()
		}
	}()
	return func() { cancel(); <-gone }
}

func (p *presenter) welcome(f frame) error {
	switch {
	case f.Type != "welcome":
		return protocolError(fmt.Sprintf("the first frame is %+v, want a welcome", f))
	case f.Room != p.room || f.Head < p.cursor.Load() || f.HeartbeatS < 1 || f.Log == "":
		return protocolError(fmt.Sprintf("welcome %+v in room %s", f, p.room))
	case p.welcomed.Load() && f.Log != p.log:
		return protocolError(fmt.Sprintf("the log is %s, and was %s before", f.Log, p.log))
	}
	if p.log == "" {
		p.log = f.Log
	}
	p.chaos.links.Add(1)
	p.welcomed.Store(true)
	p.here.Store(true)
	return nil
}

// take verifies a frame and wants its rows to follow the ones before.
func (p *presenter) take(f frame) error {
	if f.Type != "events" {
		return protocolError(fmt.Sprintf("a frame %+v, want events", f))
	}
	content, err := p.chaos.keys.open(f)
	if err != nil {
		return protocolError(err.Error())
	}
	if content.Room != p.room || content.Log != p.log {
		return protocolError(fmt.Sprintf("a frame of room %s, log %s; want %s, %s", content.Room, content.Log, p.room, p.log))
	}
	for _, e := range content.Events {
		if want := p.cursor.Load() + 1; e.Seq != want {
			return protocolError(fmt.Sprintf("came #%d, want #%d", e.Seq, want))
		}
		p.seen = append(p.seen, e)
		p.cursor.Store(e.Seq)
	}
	return nil
}

// sortedKeys lists a map's keys in order, for failures that read the same twice.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
