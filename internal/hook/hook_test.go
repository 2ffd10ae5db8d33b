package hook

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const secret = "a secret of the tests, 32 bytes or more"

// taken is a request as the receiver got it.
type taken struct {
	at     time.Time
	header http.Header
	body   string
}

// receiver is the other service inside the test's time: a transport that
// answers by itself. What it answers, try by try, is statuses; after the last of
// them it is 204.
type receiver struct {
	statuses []int
	takes    time.Duration // before an answer
	err      error         // in the place of an answer

	mu    sync.Mutex
	taken []taken
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	n := len(r.taken)
	r.taken = append(r.taken, taken{time.Now(), req.Header.Clone(), string(body)})
	r.mu.Unlock()
	select {
	case <-time.After(r.takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if r.err != nil {
		return nil, r.err
	}
	w := httptest.NewRecorder()
	status := http.StatusNoContent
	if n < len(r.statuses) {
		status = r.statuses[n]
	}
	if status/100 == 3 {
		w.Header().Set("Location", "http://elsewhere.example/")
	}
	w.WriteHeader(status)
	return w.Result(), nil
}

func (r *receiver) all() []taken {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

// rig is a sender and who it sends to.
type rig struct {
	*Sender
	t       *testing.T
	metrics *Metrics
	logged  bytes.Buffer
}

func newRig(t *testing.T, to *receiver, change func(*Options)) *rig {
	t.Helper()
	sign, err := HMAC([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, metrics: NewMetrics(prometheus.NewRegistry())}
	var ids atomic.Int64
	o := Options{Name: "reconnect", URL: "http://signalling.example/reconnect", Sign: sign, HTTP: &http.Client{Transport: to},
		NewID: func() string { return fmt.Sprint("ID", ids.Add(1)) }, Metrics: r.metrics, Logger: slog.New(slog.NewTextHandler(&r.logged, nil))}
	if change != nil {
		change(&o)
	}
	if r.Sender, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// wantOutcomes compares the metric.
func (r *rig) wantOutcomes(ok, failed, dropped int) {
	r.t.Helper()
	for outcome, want := range map[string]int{"ok": ok, "failed": failed, "dropped": dropped} {
		if got := testutil.ToFloat64(r.metrics.sent.WithLabelValues("reconnect", outcome)); got != float64(want) {
			r.t.Errorf("hanmadi_hooks_total{outcome=%q}: got %v, want %d", outcome, got, want)
		}
	}
}

// The receiver's side is somebody else's code: the library of the standard.
func TestHMACVerifiesWithTheStandardsLibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		encoded := secretPrefix + base64.StdEncoding.EncodeToString([]byte(secret))
		raw, err := standardwebhooks.NewWebhookRaw([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		prefixed, err := standardwebhooks.NewWebhook(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			configured string
			verifier   *standardwebhooks.Webhook
		}{{secret, raw}, {encoded, prefixed}} {
			to := &receiver{}
			sign, err := HMAC([]byte(c.configured))
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, to, func(o *Options) { o.Sign = sign })
			r.Send("7", []byte(`{"presenterIdx":"7"}`))
			synctest.Wait()
			got := to.all()
			if len(got) != 1 || got[0].body != `{"presenterIdx":"7"}` || got[0].header.Get("Content-Type") != "application/json" {
				t.Fatalf("got %+v", got)
			}
			if err := c.verifier.Verify([]byte(got[0].body), got[0].header); err != nil {
				t.Errorf("%.10s: the library of the standard refuses it: %v", c.configured, err)
			}
			if err := c.verifier.Verify([]byte(got[0].body+" "), got[0].header); err == nil {
				t.Error("another body under the same signature passes")
			}
		}
	})
}

func TestEd25519Verifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		sign, err := Ed25519(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		if err != nil {
			t.Fatal(err)
		}
		to := &receiver{}
		newRig(t, to, func(o *Options) { o.Sign = sign }).Send("7", []byte(`{}`))
		synctest.Wait()
		h := to.all()[0].header
		signature, isAsymmetric := strings.CutPrefix(h.Get("webhook-signature"), "v1a,")
		raw, err := base64.StdEncoding.DecodeString(signature)
		message := h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "." + to.all()[0].body
		if err != nil || !isAsymmetric || !ed25519.Verify(public, []byte(message), raw) {
			t.Errorf("signature %q over %q does not verify (%v)", h.Get("webhook-signature"), message, err)
		}
		if got, want := h.Get("webhook-timestamp"), fmt.Sprint(to.all()[0].at.Unix()); got != want {
			t.Errorf("webhook-timestamp: got %s, want %s", got, want)
		}
	})
}

func TestKeysThatAreRefused(t *testing.T) {
	for name, s := range map[string]string{"short": "31 bytes are not enough, I fear", "short in Base64": secretPrefix + "c2hvcnQ=", "not Base64": secretPrefix + strings.Repeat("!", 60)} {
		if _, err := HMAC([]byte(s)); err == nil || strings.Contains(err.Error(), s) {
			t.Errorf("%s: got %v, want an error that does not show the secret", name, err)
		}
	}
	for name, key := range map[string]string{"no PEM": "x", "no key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := Ed25519([]byte(key)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, url := range []string{"", "signalling", "ftp://signalling/x", "http://"} {
		if _, err := New(Options{URL: url, Metrics: NewMetrics(prometheus.NewRegistry())}); err == nil {
			t.Errorf("%q: no error", url)
		}
	}
}

func TestTriesAgainOnceUnderTheSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verifier, err := standardwebhooks.NewWebhookRaw([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			statuses   []int
			ok, failed int
			tries      int
		}{{[]int{503, 204}, 1, 0, 2}, {[]int{500, 404, 204}, 0, 1, 2}, {[]int{200}, 1, 0, 1}} {
			to := &receiver{statuses: c.statuses}
			r := newRig(t, to, nil)
			r.Send("7", []byte(`{}`))
			r.running.Wait()
			got := to.all()
			if len(got) != c.tries {
				t.Fatalf("%v: %d tries, want %d", c.statuses, len(got), c.tries)
			}
			for _, try := range got {
				if try.header.Get("webhook-id") != "ID1" {
					t.Errorf("%v: a try under id %q, want ID1", c.statuses, try.header.Get("webhook-id"))
				}
				if err := verifier.VerifyIgnoringTimestamp([]byte(try.body), try.header); err != nil {
					t.Errorf("%v: a try that does not verify: %v", c.statuses, err)
				}
			}
			r.wantOutcomes(c.ok, c.failed, 0)
			if failed := strings.Contains(r.logged.String(), "a hook was not taken"); failed != (c.failed > 0) {
				t.Errorf("%v: the log says %q", c.statuses, r.logged.String())
			}
		}
	})
}

func TestSilentReceiverIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{takes: time.Hour}
		r := newRig(t, to, nil)
		begin := time.Now()
		r.Send("7", []byte(`{}`))
		if time.Since(begin) != 0 {
			t.Error("Send blocked")
		}
		time.Sleep(3 * time.Second)
		got := to.all()
		if len(got) != 2 || got[1].at.Sub(got[0].at) != 2*time.Second+pause {
			t.Errorf("tries at %+v, want a second one 2.2 s after the first", got)
		}
		time.Sleep(1300 * time.Millisecond)
		r.wantOutcomes(0, 1, 0)
	})
}

func TestAtMostOneARoomIn5s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{}
		r := newRig(t, to, nil)
		for range 100 { // 10 s of ten lines a second in each of two rooms
			r.Send("7", []byte(`7`))
			r.Send("8", []byte(`8`))
			time.Sleep(100 * time.Millisecond)
		}
		rooms := map[string][]time.Time{}
		for _, got := range to.all() {
			rooms[got.body] = append(rooms[got.body], got.at)
		}
		for _, room := range []string{"7", "8"} {
			at := rooms[room]
			if len(at) != 2 || at[1].Sub(at[0]) != 5*time.Second {
				t.Errorf("room %s was asked for at %v, want twice, 5 s apart", room, at)
			}
		}
		r.wantOutcomes(4, 0, 0)
	})
}

func TestOldRoomsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &receiver{}, func(o *Options) { o.Flight = 1 << 20 })
		for i := range 1000 {
			r.Send(fmt.Sprint("room", i), []byte(`{}`))
		}
		time.Sleep(6 * time.Second)
		r.Send("7", []byte(`{}`))
		synctest.Wait()
		if got := len(r.sent); got != 1 {
			t.Errorf("%d rooms are remembered, want 1", got)
		}
	})
}

func TestTooManyAtOnceAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{takes: time.Second}
		r := newRig(t, to, func(o *Options) { o.Flight = 3 })
		for i := range 10 {
			r.Send(fmt.Sprint("room", i), []byte(`{}`))
		}
		synctest.Wait()
		if got := len(to.all()); got != 3 {
			t.Errorf("%d under way, want 3", got)
		}
		r.wantOutcomes(0, 0, 7)
		time.Sleep(1100 * time.Millisecond)
		r.Send("room9", []byte(`{}`)) // dropped before, so the 5 s have not begun
		time.Sleep(1100 * time.Millisecond)
		if got := len(to.all()); got != 4 {
			t.Errorf("%d in all, want 4", got)
		}
		r.wantOutcomes(4, 0, 7)
	})
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &receiver{statuses: []int{302, 307}}
		r := newRig(t, to, nil)
		r.Send("7", []byte(`{}`))
		time.Sleep(time.Second)
		if got := len(to.all()); got != 2 {
			t.Errorf("%d requests, want the two tries alone", got)
		}
		r.wantOutcomes(0, 1, 0)
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, to := range map[string]*receiver{"in a request": {takes: time.Hour}, "between two": {err: errors.New("refused")}} {
			r := newRig(t, to, nil)
			begin := time.Now()
			r.Send("7", []byte(`{}`))
			synctest.Wait()
			r.Close()
			if took := time.Since(begin); took != 0 {
				t.Errorf("%s: Close took %v", name, took)
			}
			r.Send("8", []byte(`{}`))
			synctest.Wait()
			if got := len(to.all()); got > 2 || got == 0 || to.all()[got-1].body != "{}" {
				t.Errorf("%s: %d requests", name, got)
			}
			for _, got := range to.all() {
				if got.header.Get("webhook-id") != "ID1" {
					t.Errorf("%s: sent after Close", name)
				}
			}
		}
	})
}

// A real connection, for what the transport above cannot show: the bytes of a
// long answer are not waited for.
func TestOverARealConnection(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		close(gone)
	}))
	defer server.Close()
	r := newRig(t, nil, func(o *Options) { o.HTTP, o.URL = nil, server.URL })
	r.Send("7", []byte(`{}`))
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	select {
	case <-gone:
	case <-ctx.Done():
		t.Fatal("an endless answer is read for ever")
	}
	r.running.Wait()
	r.wantOutcomes(1, 0, 0)
}
