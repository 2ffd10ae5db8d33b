// Package hook tells other services of the platform that something happened,
// by a signed HTTP POST.
//
// Requests follow Standard Webhooks (standardwebhooks.com): webhook-id,
// webhook-timestamp (seconds since 1970) and webhook-signature, made over
// "id.timestamp.body". A receiver checks the signature, refuses timestamps that
// are minutes off, and drops ids that it has seen.
package hook

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Signer signs the message of a request; what it returns is the value of
// webhook-signature.
type Signer func(message []byte) string

// secretPrefix marks a secret as Standard Webhooks writes it: the rest is Base64.
const secretPrefix = "whsec_"

// HMAC signs with a shared secret: "v1," and HMAC-SHA256 in Base64. The secret
// is at least 32 bytes, as they are or, after "whsec_", in Base64.
func HMAC(secret []byte) (Signer, error) {
	if encoded, ok := bytes.CutPrefix(secret, []byte(secretPrefix)); ok {
		var err error
		if secret, err = base64.StdEncoding.DecodeString(string(encoded)); err != nil {
			return nil, fmt.Errorf("the secret begins with %s, but what follows is not Base64", secretPrefix)
		}
	}
	if len(secret) < 32 {
		return nil, fmt.Errorf("the secret has %d bytes; it needs at least 32", len(secret))
	}
	return func(message []byte) string {
		mac := hmac.New(sha256.New, secret)
		mac.Write(message)
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}, nil
}

// Ed25519 signs with a private key (PKCS#8 PEM): "v1a," and the signature in
// Base64.
func Ed25519(keyPEM []byte) (Signer, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("this is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not Ed25519")
	}
	return func(message []byte) string {
		return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(private, message))
	}, nil
}

// Options are set once. New fills the times and counts that are zero.
type Options struct {
	Name    string // of the hook, for metrics and logs
	URL     string
	Sign    Signer
	HTTP    *http.Client
	NewID   func() string
	Metrics *Metrics
	Logger  *slog.Logger

	Timeout time.Duration // of one try; 2 s
	Every   time.Duration // at most one a key in this time; 5 s
	Flight  int           // at once; 64, more are dropped
}

// Sender posts to one URL. Methods may be called concurrently.
type Sender struct {
	opts    Options
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	sent   map[string]time.Time // guarded by mu: when each key was last sent
	pruned time.Time            // guarded by mu: when old keys were last dropped
	flight int                  // guarded by mu
	closed bool                 // guarded by mu
}

// pause is between the first try and the only other one.
const pause = 200 * time.Millisecond

// New makes a sender; Close ends it.
func New(o Options) (*Sender, error) {
	if u, err := url.Parse(o.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an address such as http://signalling:8080/reconnect", o.URL)
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Every == 0 {
		o.Every = 5 * time.Second
	}
	if o.Flight == 0 {
		o.Flight = 64
	}
	if o.HTTP == nil {
		// Of its own, so that Close ends its connections and nobody else's.
		o.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10}}
	}
	client := *o.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &client
	o.Metrics.name(o.Name)
	ctx, cancel := context.WithCancel(context.Background())
	return &Sender{opts: o, ctx: ctx, cancel: cancel, sent: map[string]time.Time{}}, nil
}

// Close gives up what is under way and waits for it.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	s.opts.HTTP.CloseIdleConnections()
}

// Send posts a body in the background, unless one with this key went out a
// moment ago or too many are under way. It never blocks.
func (s *Sender) Send(key string, body []byte) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.sent[key]; s.closed || ok && now.Sub(last) < s.opts.Every {
		return
	}
	if s.flight >= s.opts.Flight {
		s.opts.Metrics.done(s.opts.Name, "dropped")
		return
	}
	s.pruneLocked(now)
	s.sent[key] = now
	s.flight++
	s.running.Go(func() {
		s.deliver(body)
		s.mu.Lock()
		s.flight--
		s.mu.Unlock()
	})
}

// pruneLocked drops what is of no more use, once in a while: with thousands of
// rooms waiting, a walk over all of them for each send would add up.
func (s *Sender) pruneLocked(now time.Time) {
	if now.Sub(s.pruned) < s.opts.Every {
		return
	}
	s.pruned = now
	for key, at := range s.sent {
		if now.Sub(at) >= s.opts.Every {
			delete(s.sent, key)
		}
	}
}

// deliver tries twice, under one id: a receiver that got the first drops the
// second.
func (s *Sender) deliver(body []byte) {
	id := s.opts.NewID()
	for try := 1; ; try++ {
		err := s.post(id, body)
		if err == nil {
			s.opts.Metrics.done(s.opts.Name, "ok")
			return
		}
		if try == 2 || s.ctx.Err() != nil {
			s.opts.Metrics.done(s.opts.Name, "failed")
			s.opts.Logger.Warn("a hook was not taken", "hook", s.opts.Name, "id", id, "error", err)
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

func (s *Sender) post(id string, body []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", s.opts.Sign(Message(id, at, body)))
	resp, err := s.opts.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// Message is what is signed.
func Message(id, timestamp string, body []byte) []byte {
	return append([]byte(id+"."+timestamp+"."), body...)
}

// Metrics are what the hooks tell of themselves.
type Metrics struct{ sent *prometheus.CounterVec }

// NewMetrics registers the hooks' metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{sent: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hanmadi_hooks_total", Help: "Hooks sent, by name and outcome: ok, failed (after a second try), dropped."}, []string{"hook", "outcome"})}
	reg.MustRegister(m.sent)
	return m
}

// name makes a hook's outcomes show as zeros before the first of them.
func (m *Metrics) name(hook string) {
	for _, outcome := range []string{"ok", "failed", "dropped"} {
		m.sent.WithLabelValues(hook, outcome)
	}
}

func (m *Metrics) done(name, outcome string) { m.sent.WithLabelValues(name, outcome).Inc() }
