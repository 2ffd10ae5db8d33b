package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanmadi/hanmadi/internal/socket"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// presenter is one link that takes what comes.
type presenter struct {
	room string
	conn *socket.Conn
	seen atomic.Int64 // the last seq
	took func(number int64, at time.Time)
	err  atomic.Pointer[error]
}

// present opens the link of a room. took hears of each line; may be nil.
func (s *server) present(ctx context.Context, room string, took func(number int64, at time.Time)) (*presenter, error) {
	header := http.Header{"Authorization": {"Bearer " + s.tokenOf(room, "")}}
	conn, _, err := socket.Dial(ctx, "ws://"+s.listen+"/v1/presenter", header, wire.MaxServerFrame)
	if err != nil {
		return nil, fmt.Errorf("link of %s: %w", room, err)
	}
	return &presenter{room: room, conn: conn, took: took}, nil
}

// run reads until the link ends.
func (p *presenter) run() {
	for {
		data, err := p.conn.Read()
		if err == nil {
			err = p.take(data, time.Now())
		}
		if err != nil {
			p.err.Store(&err)
			return
		}
	}
}

func (p *presenter) take(data []byte, at time.Time) error {
	frame, err := wire.DecodeServer(data)
	if err != nil {
		return err
	}
	switch f := frame.(type) {
	case wire.Heartbeat:
		return p.conn.Write(wire.Encode(wire.Heartbeat{}), time.Minute)
	case wire.Error:
		return errors.New(f.Code)
	case wire.Events:
		return p.events(f, at)
	}
	return nil
}

func (p *presenter) events(f wire.Events, at time.Time) error {
	var payload struct {
		Events []struct {
			Seq  int64  `json:"seq"`
			Text string `json:"text"`
		} `json:"events"`
	}
	if err := json.Unmarshal([]byte(f.Payload), &payload); err != nil {
		return err
	}
	for _, e := range payload.Events {
		if last := p.seen.Swap(e.Seq); last != 0 && e.Seq != last+1 {
			return fmt.Errorf("room %s: seq %d after %d", p.room, e.Seq, last)
		}
		if n, ok := lineNumber(e.Text); ok && p.took != nil {
			p.took(n, at)
		}
	}
	return nil
}

// audience is the presenters of all rooms, with the times of lines on their way.
type audience struct {
	links []*presenter

	mu      sync.Mutex
	due     map[int64]time.Time // guarded by mu: when lines were due that have not come
	arrived int64               // guarded by mu
	times   latencies           // guarded by mu
}

func (s *server) gather(ctx context.Context) (*audience, error) {
	a := &audience{due: map[int64]time.Time{}}
	for i := range rooms {
		p, err := s.present(ctx, roomName(i), a.took)
		if err != nil {
			return nil, err
		}
		a.links = append(a.links, p)
		go p.run()
	}
	return a, nil
}

func (a *audience) sent(n int64, at time.Time) {
	a.mu.Lock()
	a.due[n] = at
	a.mu.Unlock()
}

func (a *audience) took(n int64, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	due, ok := a.due[n]
	if !ok {
		return
	}
	delete(a.due, n)
	a.arrived++
	a.times.add(at.Sub(due))
}

// settle waits until every line has come to its presenter, and gives the times
// since the last call.
func (a *audience) settle(ctx context.Context) (latencies, error) {
	for ctx.Err() == nil {
		a.mu.Lock()
		left, times := len(a.due), a.times
		if left == 0 {
			a.times = latencies{}
		}
		a.mu.Unlock()
		if left == 0 {
			return times, nil
		}
		for _, p := range a.links {
			if err := p.err.Load(); err != nil {
				return latencies{}, fmt.Errorf("the link of %s ended: %w", p.room, *err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	return latencies{}, ctx.Err()
}

func (a *audience) leave() {
	for _, p := range a.links {
		p.conn.Drop()
	}
}
