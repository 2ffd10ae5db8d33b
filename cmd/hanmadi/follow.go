package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/wire"
)

// silentStream is how long a stream may say nothing, not even a comment, of
// which there is one every 25 s.
const silentStream = 75 * time.Second

// stream follows a room as a viewer and prints until the stream ends; it never
// returns nil.
func (l *listener) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := l.fetchKeys(ctx); err != nil {
		return err
	}
	req, err := l.following(ctx)
	if err != nil {
		return finalError{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return l.refused(resp)
	}
	silence := time.AfterFunc(silentStream, cancel)
	defer silence.Stop()
	for events := wire.NewServerSentReader(resp.Body); ; silence.Reset(silentStream) {
		e, err := events.Next()
		if err != nil {
			return fmt.Errorf("the stream ended: %w", err)
		}
		if err := l.happened(e); err != nil {
			return err
		}
	}
}

// following is the request for a stream. A viewer may have no token.
func (l *listener) following(ctx context.Context) (*http.Request, error) {
	endpoint, err := l.endpoint("v1", "rooms", l.Follow, "events")
	if err != nil {
		return nil, err
	}
	if l.log != "" {
		endpoint += "?log=" + url.QueryEscape(l.log)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Accept-Language", acceptLanguage())
	if l.cursor >= 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(l.cursor, 10))
	}
	if os.Getenv("HANMADI_TOKEN") != "" || os.Getenv("HANMADI_TOKEN_FILE") != "" {
		token, err := l.token()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// refused reads why there is no stream. A cursor of another log means nothing
// here.
func (l *listener) refused(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var p struct {
		Code   chat.Code `json:"code"`
		Detail string    `json:"detail"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	told := fmt.Errorf("%s (%s)", visibleText(p.Detail), visibleText(string(p.Code)))
	switch {
	case p.Code == chat.CursorForeign && (l.cursor >= 0 || l.log != ""):
		fmt.Fprintln(l.err, "hanmadi: the server has another log; starting over")
		l.cursor, l.log = -1, ""
	case resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
		return finalError{told}
	}
	return told
}

// happened acts on an event.
func (l *listener) happened(e wire.ServerSent) error {
	if e.Name == "" {
		l.began(e.ID)
		return nil
	}
	frame, err := wire.DecodeServer(e.Data)
	if errors.Is(err, wire.ErrUnknownType) {
		return nil
	}
	if err != nil {
		return finalError{err}
	}
	switch f := frame.(type) {
	case wire.Skipped:
		fmt.Fprintf(l.err, "hanmadi: skipped ahead to #%d\n", f.To)
		l.cursor = f.To
	case wire.Error:
		return fmt.Errorf("%s (%s)", visibleText(f.Detail), visibleText(f.Code))
	case wire.Events:
		return l.events(f)
	}
	return nil
}

// began learns where a stream starts, which it says first.
func (l *listener) began(id string) {
	seq, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return // a comment, say
	}
	l.wait = firstWait
	if l.cursor < 0 {
		l.cursor = seq
	}
	fmt.Fprintf(l.err, "hanmadi: following room %s from #%d\n", visibleText(l.Follow), seq)
}
