package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

const (
	fetchTime    = 3 * time.Second  // for one fetch, and for waiting for one
	fetchGap     = 10 * time.Second // between the starts of fetches, whatever tokens ask for
	refreshEvery = 10 * time.Minute // after a fetch that went well, give or take a tenth
	retryEvery   = 30 * time.Second // after one that did not
	maxSet       = 256 << 10        // bytes
	maxRedirects = 3
)

// remote is the key set behind a URL. Every fetch arranges the next one, so
// that those who ask find a set and do not wait; between fetches it has no
// goroutine, only a timer. Its methods may be called concurrently.
type remote struct {
	// Set once.
	url     string
	client  *http.Client
	onFetch func(error)
	ctx     context.Context
	cancel  context.CancelFunc

	set atomic.Pointer[ring] // as last fetched, nil before the first

	fetches sync.WaitGroup // added to under mu, before closed

	// Guarded by mu.
	mu     sync.Mutex
	timer  *time.Timer   // starts the next fetch
	began  time.Time     // the last fetch
	done   chan struct{} // closed when the running fetch ends; nil: none runs
	err    error         // of the last fetch that ended
	closed bool
}

// newRemote checks the URL. Nothing is fetched before start.
func newRemote(address string, client *http.Client, onFetch func(error)) (*remote, error) {
	u, err := url.Parse(address)
	if err != nil || checkURL(u) != nil {
		return nil, errURL
	}
	if client == nil {
		// A connection that is used every 10 minutes is not worth its goroutines.
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableKeepAlives = true
		transport.MaxResponseHeaderBytes = 64 << 10
		client = &http.Client{Transport: transport}
	}
	own := *client
	own.CheckRedirect = checkRedirect
	r := &remote{url: address, client: &own, onFetch: onFetch}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// start begins the first fetch and does not wait for it.
func (r *remote) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = time.AfterFunc(refreshEvery, r.refresh)
	r.fetchLocked()
}

// close ends a running fetch, after which there are no more. The set stays.
func (r *remote) close() {
	r.mu.Lock()
	r.closed = true
	r.timer.Stop()
	r.mu.Unlock()
	r.cancel()
	r.fetches.Wait()
}

// find returns the key of the set that verifies a token. Only a kid that the
// set does not have can make it wait, or that there is no set yet. Its errors
// are refusals.
func (r *remote) find(t unverified) (key, error) {
	if set := r.set.Load(); set != nil {
		k, err := set.find(t)
		if err == nil {
			return k, nil
		}
		if set.knows(t.kid) {
			return key{}, invalid(err)
		}
	}
	fetchErr := r.renew()
	set := r.set.Load()
	if set == nil {
		// Not token.invalid: the token may be good, and its bearer's page would
		// log in again, in vain. This passes, so it is to be tried again.
		return key{}, &chat.Refusal{Code: chat.Overloaded, RetryAfter: 2 * time.Second,
			Cause: fmt.Errorf("there is no key set yet to verify tokens with: %w", fetchErr)}
	}
	k, err := set.find(t)
	switch {
	case err == nil:
		return k, nil
	case set.knows(t.kid):
		return key{}, invalid(err)
	case fetchErr != nil:
		return key{}, invalid(fmt.Errorf("%w, and keys could not be fetched: %w", errUnknown, fetchErr))
	default:
		return key{}, invalid(errUnknown)
	}
}

// errSlow is for those who waited for a fetch in vain.
var errSlow = fmt.Errorf("no answer within %v", fetchTime)

// renew waits for the fetch that is running; if none is, and the last began
// long enough ago, for a new one. It returns how the last fetch ended, in which
// errSlow stands for one that is still running.
func (r *remote) renew() error {
	r.mu.Lock()
	if time.Since(r.began) >= fetchGap {
		r.fetchLocked()
	}
	done := r.done
	r.mu.Unlock()
	if done != nil {
		// A fetch ends by itself in this time, unless a proxy of Config.HTTP or
		// OnFetch has other ideas.
		timeout := time.NewTimer(fetchTime)
		defer timeout.Stop()
		select {
		case <-done:
		case <-timeout.C:
			return errSlow
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// refresh is what the timer does.
func (r *remote) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetchLocked()
}

// fetchLocked starts a fetch unless one is running. mu is held.
func (r *remote) fetchLocked() {
	if r.closed || r.done != nil {
		return
	}
	r.began, r.done = time.Now(), make(chan struct{})
	r.timer.Stop()
	r.fetches.Go(r.fetch)
}

// fetch brings the set up to date; after an error it stays as it was, for ever
// if need be: keys that were good say more than a server that does not answer.
func (r *remote) fetch() {
	set, err := r.get()
	next := retryEvery
	if err == nil {
		r.set.Store(&set)
		next = refreshEvery
	}
	if r.onFetch != nil && r.ctx.Err() == nil {
		r.onFetch(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	close(r.done)
	r.done = nil
	if !r.closed {
		// Jitter, so that nodes that started together do not ask together.
		r.timer.Reset(next - next/10 + rand.N(next/5))
	}
}

// get fetches the set and reads it. Its errors leave out the URL, which may
// carry a key of its own.
func (r *remote) get() (ring, error) {
	ctx, cancel := context.WithTimeoutCause(r.ctx, fetchTime, errSlow)
	defer cancel()
	body, err := r.read(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("fetch the key set: %w", err)
	}
	set, err := parseSet(body)
	if err != nil {
		return nil, fmt.Errorf("read the key set: %w", err)
	}
	return set, nil
}

func (r *remote) read(ctx context.Context) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d, not 200", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxSet {
		return nil, fmt.Errorf("answer is longer than %d KiB", maxSet>>10)
	}
	return body, nil
}

var errURL = errors.New("want a URL such as https://example.com/jwks.json; http only on this machine, and no user name or password in it")

// checkURL refuses where anybody on the way could put keys of their own in.
func checkURL(u *url.URL) error {
	ip, _ := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || ip.IsLoopback()
	if u.Hostname() == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !local) {
		return errURL
	}
	return nil
}

// checkRedirect is [http.Client.CheckRedirect].
func checkRedirect(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case next.URL.Scheme != via[0].URL.Scheme:
		return errors.New("redirect to another scheme")
	case checkURL(next.URL) != nil:
		return errors.New("redirect to where keys could be forged on the way")
	}
	return nil
}
