package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
	"github.com/hanmadi/hanmadi/internal/socket"
	"github.com/hanmadi/hanmadi/internal/wire"
)

type listenCmd struct {
	caller `embed:""`
	Follow string `placeholder:"ROOM" help:"Follow a room as a viewer does, over server-sent events; the token may be left out."`
	After  int64  `default:"-1" help:"Last seq that you have; -1: from the start of the running broadcast, or, with --follow, from now on."`
	Count  int64  `help:"Stop after this many events; 0: never."`
	JSON   bool   `help:"Print events as JSON, one a line, hidden ones included."`
}

// Help is shown under --help.
func (listenCmd) Help() string {
	return "The token is taken from HANMADI_TOKEN or HANMADI_TOKEN_FILE; its user is the presenter, unless --follow names a room. Every frame's signature is verified. A link that breaks is opened again where it stood."
}

// Bounds of the waits between two tries: exponential with full jitter.
const (
	firstWait = 500 * time.Millisecond
	mostWait  = 15 * time.Second
)

// Run prints what is said until a signal.
func (c *listenCmd) Run(s streams, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	l := &listener{listenCmd: c, streams: s, cursor: c.After, wait: firstWait}
	open := l.link
	if c.Follow != "" {
		open = l.stream
	}
	for {
		err := open(ctx)
		var final finalError
		switch {
		case errors.Is(err, errEnough), ctx.Err() != nil:
			return nil
		case errors.As(err, &final):
			return final.error
		}
		wait := rand.N(l.wait)
		l.wait = min(2*l.wait, mostWait)
		fmt.Fprintf(s.err, "hanmadi: %v; connecting again in %s\n", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// finalError is an end after which connecting again does not help.
type finalError struct{ error }

var errEnough = errors.New("enough events")

// listener is the state that outlives a link.
type listener struct {
	*listenCmd
	streams
	log    string // of the cursor; "" before the first welcome
	cursor int64  // last seq printed, -1 before the first
	seen   int64
	wait   time.Duration
	keys   seal.KeySet
}

// link opens one link and prints until it ends; it never returns nil.
func (l *listener) link(ctx context.Context) error {
	token, err := l.token()
	if err != nil {
		return finalError{err}
	}
	endpoint, err := l.endpoint("v1", "presenter")
	if err != nil {
		return finalError{err}
	}
	if err := l.fetchKeys(ctx); err != nil {
		return err
	}
	header := http.Header{"Accept-Language": {acceptLanguage()}}
	conn, status, err := socket.Dial(ctx, "ws"+strings.TrimPrefix(endpoint, "http"), header, wire.MaxServerFrame)
	if err != nil {
		if status >= 400 && status < 500 {
			return finalError{fmt.Errorf("the server answered %d: %w", status, err)}
		}
		return err
	}
	defer conn.Drop()
	unhook := context.AfterFunc(ctx, conn.Drop)
	defer unhook()
	start := wire.Start{Token: token, Log: l.log}
	if l.cursor >= 0 {
		start.After = &l.cursor
	}
	if err := conn.Write(wire.Encode(start), mostWait); err != nil {
		return err
	}
	return l.read(conn)
}

// read acts on frames until the link ends. Heartbeats bound the silence.
func (l *listener) read(conn *socket.Conn) error {
	silence := time.Minute
	var told error // by an error frame, before the close that it explains
	for {
		conn.ReadBy(time.Now().Add(silence))
		data, err := conn.Read()
		if err != nil {
			code, reason := socket.CloseCode(err)
			switch {
			case told == nil && reason == "":
				told = err
			case told == nil:
				told = fmt.Errorf("closed: %s (%d)", visibleText(reason), code)
			}
			if !wire.CloseCode(code).Retry() {
				return finalError{told}
			}
			return told
		}
		frame, err := wire.DecodeServer(data)
		if errors.Is(err, wire.ErrUnknownType) {
			continue
		}
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case wire.Welcome:
			silence = 3 * time.Duration(f.HeartbeatS) * time.Second
			l.welcome(f)
		case wire.Heartbeat:
			err = conn.Write(wire.Encode(wire.Heartbeat{}), mostWait)
		case wire.Skipped:
			fmt.Fprintf(l.err, "hanmadi: skipped ahead to #%d\n", f.To)
			l.cursor = f.To
		case wire.Error:
			told = fmt.Errorf("%s (%s)", visibleText(f.Detail), f.Code)
		case wire.Events:
			if err = l.events(f); err == nil {
				err = conn.Write(wire.Encode(wire.Relayed{Seq: l.cursor}), mostWait)
			}
		}
		if err != nil {
			return err
		}
	}
}

// welcome learns which log this is. A cursor of another one means nothing here.
func (l *listener) welcome(f wire.Welcome) {
	l.wait = firstWait
	if l.log != "" && l.log != f.Log || l.cursor > f.Head {
		fmt.Fprintln(l.err, "hanmadi: the server has another log; starting over")
		l.cursor = -1
	}
	l.log = f.Log
	fmt.Fprintf(l.err, "hanmadi: linked to room %s at #%d\n", visibleText(f.Room), f.Head)
}

// events verifies a frame and prints its rows, each once and in order.
func (l *listener) events(f wire.Events) error {
	if err := l.keys.Verify(f.KID, f.Sig, []byte(f.Payload)); err != nil {
		return finalError{fmt.Errorf("a frame is not from this server: %w", err)}
	}
	var payload struct {
		Room   string            `json:"room"`
		Log    string            `json:"log"`
		Events []json.RawMessage `json:"events"`
	}
	if err := wire.Decode([]byte(f.Payload), &payload); err != nil {
		return finalError{err}
	}
	l.log = payload.Log
	for _, raw := range payload.Events {
		var e chat.Event
		if err := wire.Decode(raw, &e); err != nil {
			return finalError{err}
		}
		if l.cursor >= 0 && e.Seq != l.cursor+1 {
			return finalError{fmt.Errorf("after #%d came #%d", l.cursor, e.Seq)}
		}
		l.cursor = e.Seq
		if err := l.print(e, raw); err != nil {
			return finalError{err}
		}
		if l.seen++; l.seen == l.Count {
			return errEnough
		}
	}
	return nil
}

func (l *listener) print(e chat.Event, raw json.RawMessage) (err error) {
	at, _ := time.Parse(chat.TimeFormat, e.At)
	clock := at.Local().Format(time.TimeOnly)
	switch {
	case l.JSON:
		_, err = fmt.Fprintf(l.out, "%s\n", raw)
	case e.Kind == chat.KindMessage && e.User != nil:
		var quote string
		if e.Reply != nil {
			quote = fmt.Sprintf(" (to #%d %s: %s)", e.Reply.Seq, visibleText(e.Reply.Nickname), visibleText(e.Reply.Text))
		}
		_, err = fmt.Fprintf(l.out, "%s #%d %s:%s %s\n", clock, e.Seq, visibleText(e.User.Nickname), quote, visibleText(e.Text))
	case e.Kind == chat.KindBroadcast:
		_, err = fmt.Fprintf(l.out, "%s #%d -- broadcast %s %s --\n", clock, e.Seq, visibleText(e.Broadcast), visibleText(e.State))
	}
	return err
}

// fetchKeys reads the server's public keys.
func (l *listener) fetchKeys(ctx context.Context) error {
	endpoint, err := l.endpoint(".well-known", "jwks.json")
	if err != nil {
		return finalError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return finalError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server's keys: %s", resp.Status)
	}
	if l.keys, err = seal.ParseKeySet(data); err != nil {
		return finalError{err}
	}
	return nil
}

// visibleText shows what would move the cursor, colour the terminal or hide
// text as the escapes of Go strings. Joiners that emoji need stay.
func visibleText(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsGraphic(r) || r == '\u200d' || r == '\ufe0f':
			b.WriteRune(r)
		default:
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
