package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The load: people who say lines of 100 code points, each in one room.
const (
	rooms       = 16
	senders     = 1000
	connections = 32
	lineRunes   = 100
)

func roomName(i int) string { return fmt.Sprint("p", i%rooms) }

// line is a text of 100 code points that begins with a number of its own.
func line(n int64) string {
	const filler = "오늘 방송 정말 재미있어요 다음에도 꼭 볼게요 "
	head := strconv.FormatInt(n, 10) + " "
	text := []rune(head + strings.Repeat(filler, lineRunes/10))
	return string(text[:lineRunes-1]) + "끝"
}

// lineNumber finds it again.
func lineNumber(text string) (int64, bool) {
	head, _, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(head, 10, 64)
	return n, err == nil
}

// caller is one keep-alive connection. It writes requests by itself: the load
// must cost less than what it measures.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
}

func dial(addr string) (*caller, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &caller{conn: conn, in: bufio.NewReader(conn)}, nil
}

// say posts a line and returns the status of the answer.
func (c *caller) say(room, token, text string) (int, error) {
	c.out.Reset()
	fmt.Fprintf(&c.out, "POST /v1/rooms/%s/messages HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{\"text\":\"%s\"}",
		room, token, len(text)+len(`{"text":""}`), text)
	_ = c.conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return 0, err
	}
	return c.answer()
}

func (c *caller) answer() (status int, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first:
			if len(line) < 12 {
				return 0, errors.New("that is no HTTP")
			}
			status, err = strconv.Atoi(string(line[9:12]))
		case len(line) == 0:
			_, err = c.in.Discard(length)
			return status, err
		case len(line) > 15 && bytes.EqualFold(line[:15], []byte("Content-Length:")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
		}
		if err != nil {
			return 0, err
		}
	}
}

// load is one run of the load against a server.
type load struct {
	addr   string
	tokens func(n int64) (room, token string) // who says line n, and where
	next   *atomic.Int64                      // the number of the next line
	sent   func(n int64, at time.Time)        // hears of each line before it goes; may be nil
}

// result is what a run came to.
type result struct {
	lines int64
	took  time.Duration
	post  latencies
}

// closed has every connection say one line after another for a time.
func (l *load) closed(ctx context.Context, d time.Duration) (result, error) {
	until := time.Now().Add(d)
	return l.run(ctx, func(c *caller, out *result) error {
		for time.Now().Before(until) && ctx.Err() == nil {
			if err := l.one(c, time.Now(), out); err != nil {
				return err
			}
		}
		return nil
	})
}

// open begins lines at a steady rate, however long the answers take: a line's
// time counts from when it was due.
func (l *load) open(ctx context.Context, perSecond float64, d time.Duration) (result, error) {
	start, gap := time.Now(), time.Duration(float64(time.Second)/perSecond)
	var due atomic.Int64
	return l.run(ctx, func(c *caller, out *result) error {
		for ctx.Err() == nil {
			at := start.Add(time.Duration(due.Add(1)-1) * gap)
			if at.Sub(start) >= d {
				return nil
			}
			time.Sleep(time.Until(at))
			if err := l.one(c, at, out); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *load) one(c *caller, due time.Time, out *result) error {
	n := l.next.Add(1)
	room, token := l.tokens(n)
	if l.sent != nil {
		l.sent(n, due)
	}
	status, err := c.say(room, token, line(n))
	if err != nil {
		return err
	}
	if status != 201 {
		return fmt.Errorf("line %d was answered %d", n, status)
	}
	out.lines++
	out.post.add(time.Since(due))
	return nil
}

func (l *load) run(ctx context.Context, each func(*caller, *result) error) (result, error) {
	start := time.Now()
	results, errs := make([]result, connections), make([]error, connections)
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			c, err := dial(l.addr)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.conn.Close()
			if errs[i] = each(c, &results[i]); errors.Is(errs[i], io.EOF) {
				errs[i] = errors.New("the server closed a connection")
			}
		})
	}
	wg.Wait()
	all := result{took: time.Since(start)}
	for _, r := range results {
		all.lines += r.lines
		all.post.all = append(all.post.all, r.post.all...)
	}
	return all, errors.Join(errs...)
}

// latencies are times of which quantiles are asked in the end.
type latencies struct{ all []time.Duration }

func (l *latencies) add(d time.Duration) { l.all = append(l.all, d) }

func (l *latencies) quantile(q float64) time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[min(int(q*float64(len(l.all))), len(l.all)-1)]
}

func (l *latencies) String() string {
	return fmt.Sprintf("p50 %s, p99 %s", short(l.quantile(0.5)), short(l.quantile(0.99)))
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
