package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hanmadi/hanmadi/internal/chatlog"
)

// caller is what commands that talk to a server share.
type caller struct {
	URL string `default:"http://127.0.0.1:8080" help:"The server."`
}

// token is HANMADI_TOKEN, or what HANMADI_TOKEN_FILE holds now: it may be
// renewed there while we run.
func (c *caller) token() (string, error) {
	direct, path := os.Getenv("HANMADI_TOKEN"), os.Getenv("HANMADI_TOKEN_FILE")
	switch {
	case direct != "" && path != "":
		return "", usageError{errors.New("HANMADI_TOKEN and HANMADI_TOKEN_FILE exclude each other")}
	case direct != "":
		return strings.TrimSpace(direct), nil
	case path != "":
		data, err := readBounded(path, maxSecretFile)
		return strings.TrimSpace(string(data)), err
	}
	return "", usageError{errors.New("a token is missing: set HANMADI_TOKEN or HANMADI_TOKEN_FILE (hanmadi token makes one)")}
}

// endpoint joins the server's address and a path.
func (c *caller) endpoint(parts ...string) (string, error) {
	base, err := url.Parse(c.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return "", usageError{fmt.Errorf("url: %q is not an address such as https://chat.example.com", c.URL)}
	}
	return base.JoinPath(parts...).String(), nil
}

// acceptLanguage asks for sentences in the terminal's language.
func acceptLanguage() string {
	if strings.HasPrefix(os.Getenv("LANG"), "ko") {
		return "ko"
	}
	return "en"
}

type sayCmd struct {
	caller  `embed:""`
	Room    string `arg:"" help:"The presenter's user id."`
	Text    string `arg:"" help:"The line."`
	ReplyTo int64  `help:"Seq of the line that it answers."`
	Key     string `help:"Idempotency-Key; made where none is given."`
	Tries   int    `default:"5" help:"How often to try when the answer says that trying again helps."`
}

// Help is shown under --help.
func (sayCmd) Help() string {
	return "The token is taken from HANMADI_TOKEN or HANMADI_TOKEN_FILE. A line whose answer is lost is sent again with the same Idempotency-Key, so it is never said twice."
}

// problem is what the server says when it refuses.
type problem struct {
	Code         string `json:"code"`
	Detail       string `json:"detail"`
	RetryAfterMS int64  `json:"retry_after_ms"`
}

// Run says the line and prints its place in the log.
func (c *sayCmd) Run(s streams, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	if c.Key == "" {
		c.Key = chatlog.NewID()
	}
	for try := 1; ; try++ {
		wait, err := c.once(ctx, s.out)
		if err == nil || wait == 0 || try >= c.Tries {
			return err
		}
		fmt.Fprintf(s.err, "hanmadi: %v; trying again in %s\n", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// once sends the line. A wait beside the error says when to send it again.
func (c *sayCmd) once(ctx context.Context, out io.Writer) (wait time.Duration, err error) {
	req, err := c.request(ctx)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Timeout: 15 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return time.Second + rand.N(time.Second), err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return time.Second, err
	}
	if resp.StatusCode != http.StatusCreated {
		var p problem
		if json.Unmarshal(body, &p) != nil || p.Code == "" {
			return 0, fmt.Errorf("the server answered %s", resp.Status)
		}
		return time.Duration(p.RetryAfterMS) * time.Millisecond, fmt.Errorf("%s (%s)", visibleText(p.Detail), p.Code)
	}
	var sent struct {
		ID, At, Delivery string
		Seq              int64
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return 0, fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	_, err = fmt.Fprintf(out, "#%d %s %s %s\n", sent.Seq, sent.ID, sent.At, sent.Delivery)
	return 0, err
}

func (c *sayCmd) request(ctx context.Context) (*http.Request, error) {
	endpoint, err := c.endpoint("v1", "rooms", c.Room, "messages")
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(struct {
		Text    string `json:"text"`
		ReplyTo int64  `json:"reply_to,omitempty"`
	}{c.Text, c.ReplyTo})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept-Language", acceptLanguage())
	req.Header.Set("Idempotency-Key", c.Key)
	return req, nil
}
