package token

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// transportFunc answers requests without a network, and so in fake time.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// always answers with a set.
func always(set string) *http.Client {
	return &http.Client{Transport: transportFunc(func(*http.Request) (*http.Response, error) { return answer(http.StatusOK, set), nil })}
}

// keyServer is an endpoint that a test can change, and that remembers when it
// was asked.
type keyServer struct {
	mu     sync.Mutex
	reply  transportFunc
	asked  []time.Time
	ends   []error // what OnFetch was told
	config Config
}

// newKeyServer gives an endpoint that answers with these keys.
func newKeyServer(keys ...string) *keyServer {
	s := new(keyServer)
	s.config = Config{JWKSURL: "https://keys.example/jwks", HTTP: &http.Client{Transport: s}, OnFetch: s.onFetch}
	s.serve(keys...)
	return s
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	reply := s.reply
	s.mu.Unlock()
	return reply(r)
}

func (s *keyServer) onFetch(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, err)
}

func (s *keyServer) set(reply transportFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply = reply
}

func (s *keyServer) serve(keys ...string) {
	s.set(func(*http.Request) (*http.Response, error) { return answer(http.StatusOK, setOf(keys...)), nil })
}

func (s *keyServer) fail() {
	s.set(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })
}

// delay makes what it answers now take longer.
func (s *keyServer) delay(d time.Duration) {
	s.mu.Lock()
	reply := s.reply
	s.mu.Unlock()
	s.set(func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return reply(r)
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})
}

func (s *keyServer) wantFetches(t *testing.T, want int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := len(s.asked); got != want {
		t.Errorf("fetches: got %d, want %d", got, want)
	}
}

// lastEnd is what OnFetch was told last.
func (s *keyServer) lastEnd(t *testing.T) error {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) == 0 {
		t.Fatal("OnFetch was not called")
	}
	return s.ends[len(s.ends)-1]
}

// took checks how long f takes in fake time.
func took(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if got := time.Since(begin); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

// tokens of the two keys that the tests rotate between, a new text each time, so
// that the cache does not answer.
func tokenA(n int) string {
	return signWith(privateKeys().ed, `{"alg":"EdDSA","kid":"a"}`, fmt.Sprintf(`{"sub":"7","exp":%d,"n":%d}`, farOff, n))
}

func tokenB(n int) string {
	return signWith(privateKeys().ec, `{"alg":"ES256","kid":"b"}`, fmt.Sprintf(`{"sub":"7","exp":%d,"n":%d}`, farOff, n))
}

func jwkA() string { return jwkOf(privateKeys().ed.Public(), "a", `,"use":"sig","alg":"EdDSA"`) }
func jwkB() string { return jwkOf(privateKeys().ec.Public(), "b", `,"key_ops":["verify"]`) }

func refused(t *testing.T, v *Verifier, raw string, code chat.Code, cause string) {
	t.Helper()
	_, err := v.Verify(raw)
	wantRefusal(t, err, code, raw)
	if err != nil && !strings.Contains(err.Error(), cause) {
		t.Errorf("got %q, want it to say %q", err, cause)
	}
}

func TestSetRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(jwkA())
		v := newVerifier(t, s.config)
		wantUser7(t, v, tokenA(0)) // waits for the first fetch
		s.wantFetches(t, 1)

		s.serve(jwkA(), jwkB())
		time.Sleep(fetchGap - 1*time.Nanosecond)
		refused(t, v, tokenB(0), chat.TokenInvalid, "not in the key set")
		s.wantFetches(t, 1) // too soon after the last
		time.Sleep(1 * time.Nanosecond)
		took(t, 0, func() { wantUser7(t, v, tokenB(0)) })
		wantUser7(t, v, tokenA(1))
		s.wantFetches(t, 2)

		s.serve(jwkB())
		time.Sleep(refreshEvery * 11 / 10) // behind everybody's back
		s.wantFetches(t, 3)
		refused(t, v, tokenA(2), chat.TokenInvalid, "not in the key set")
		wantUser7(t, v, tokenB(1))
	})
}

// With a set there, nobody waits for its renewal, not even when it takes long.
func TestSetIsRenewedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(jwkA())
		v := newVerifier(t, s.config)
		wantUser7(t, v, tokenA(0))
		s.delay(2 * time.Second)
		for n := range 6 * 3600 / 5 {
			time.Sleep(5 * time.Second)
			took(t, 0, func() { wantUser7(t, v, tokenA(n)) })
			if t.Failed() {
				return
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := len(s.asked); got < 32 || got > 41 {
			t.Errorf("fetches in 6 hours: got %d, want 36 or so", got)
		}
		gaps := map[time.Duration]bool{}
		for i := range len(s.asked) - 1 {
			gap := s.asked[i+1].Sub(s.asked[i])
			if gap < 9*time.Minute || gap > 11*time.Minute+2*time.Second {
				t.Errorf("fetch %d came %v after the one before, want 9 to 11 minutes", i+1, gap)
			}
			gaps[gap] = true
		}
		if len(gaps) < 10 {
			t.Errorf("%d different gaps: no jitter", len(gaps))
		}
	})
}

func TestSetOutlivesItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(jwkA())
		v := newVerifier(t, s.config)
		wantUser7(t, v, tokenA(0))
		if err := s.lastEnd(t); err != nil {
			t.Errorf("OnFetch: got %v, want nil", err)
		}
		s.fail()
		for n := range 100 {
			time.Sleep(time.Hour)
			took(t, 0, func() { wantUser7(t, v, tokenA(n)) })
		}
		if err := s.lastEnd(t); err == nil || !strings.Contains(err.Error(), "fetch the key set: no route to host") {
			t.Errorf("OnFetch: got %v, want the cause", err)
		}
		refused(t, v, tokenB(0), chat.TokenInvalid, "not in the key set, and keys could not be fetched: fetch the key set: no route to host")
		s.serve(jwkB())
		time.Sleep(retryEvery * 11 / 10)
		wantUser7(t, v, tokenB(1))
		if err := s.lastEnd(t); err != nil {
			t.Errorf("OnFetch: got %v, want nil", err)
		}
	})
}

func TestNoSetYet(t *testing.T) {
	overloaded := func(t *testing.T, v *Verifier, raw, cause string) {
		t.Helper()
		refused(t, v, raw, chat.Overloaded, cause)
		_, err := v.Verify(raw)
		if r, ok := errors.AsType[*chat.Refusal](err); !ok || r.RetryAfter != 2*time.Second {
			t.Errorf("got %v, want a refusal to try again after 2 s", err)
		}
	}
	t.Run("server fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newKeyServer()
			s.fail()
			v := newVerifier(t, s.config)
			for range 9 {
				took(t, 0, func() { overloaded(t, v, tokenA(0), "no route to host") })
				time.Sleep(time.Second)
			}
			s.wantFetches(t, 1)
			time.Sleep(time.Second)
			overloaded(t, v, tokenA(0), "no route to host")
			s.wantFetches(t, 2)
			// Those that need no set are not kept waiting.
			for _, raw := range []string{hs256(userSecret, `{"alg":"HS256"}`, payload7), signWith(privateKeys().rsa, `{"alg":"PS256"}`, payload7), "MARK"} {
				took(t, 0, func() { refused(t, v, raw, chat.TokenInvalid, "") })
			}
			s.serve(jwkA())
			time.Sleep(fetchGap)
			wantUser7(t, v, tokenA(0))
		})
	})
	t.Run("server is slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newKeyServer(jwkA())
			s.delay(fetchTime - 1*time.Nanosecond)
			v := newVerifier(t, s.config)
			took(t, fetchTime-1*time.Nanosecond, func() { wantUser7(t, v, tokenA(0)) })
		})
	})
	t.Run("server is too slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newKeyServer(jwkA())
			s.delay(time.Minute)
			v := newVerifier(t, s.config)
			took(t, fetchTime, func() { overloaded(t, v, tokenA(0), "no answer within 3s") })
			synctest.Wait()
			if got := s.lastEnd(t); !errors.Is(got, errSlow) {
				t.Errorf("OnFetch: got %v, want %v", got, errSlow)
			}
		})
	})
	t.Run("PEM keys beside it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newKeyServer()
			s.fail()
			s.config.PublicKeys = []byte(publicPEM(privateKeys().ed))
			v := newVerifier(t, s.config)
			took(t, 0, func() { wantUser7(t, v, tokenA(0)) })
			overloaded(t, v, tokenB(0), "no key set yet")
		})
	})
}

// A transport that does not end when it is told to keeps nobody for longer.
func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer()
		s.set(func(*http.Request) (*http.Response, error) {
			time.Sleep(20 * time.Second)
			return answer(http.StatusOK, setOf(jwkA())), nil
		})
		v := newVerifier(t, s.config)
		took(t, fetchTime, func() { refused(t, v, tokenA(0), chat.Overloaded, "no answer within 3s") })
		took(t, fetchTime, func() { refused(t, v, tokenA(0), chat.Overloaded, "no answer within 3s") })
		s.wantFetches(t, 1)
	})
}

func TestUnknownKidFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(jwkA())
		v := newVerifier(t, s.config)
		wantUser7(t, v, tokenA(0))
		s.delay(time.Second)
		time.Sleep(fetchGap)

		// All at once: one flight, which all wait for.
		var wg sync.WaitGroup
		for n := range 200 {
			raw := hs256(nil, fmt.Sprintf(`{"alg":"ES256","kid":"x%d"}`, n), payload7)
			wg.Go(func() { took(t, time.Second, func() { refused(t, v, raw, chat.TokenInvalid, "not in the key set") }) })
		}
		synctest.Wait()
		took(t, 0, func() { wantUser7(t, v, tokenA(1)) }) // who is known passes them by
		wg.Wait()
		s.wantFetches(t, 2)

		// For an hour.
		for n := range 3600 * 4 {
			_, _ = v.Verify(hs256(nil, fmt.Sprintf(`{"alg":"ES256","kid":"y%d"}`, n), payload7))
			time.Sleep(250 * time.Millisecond)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range len(s.asked) - 1 {
			if gap := s.asked[i+1].Sub(s.asked[i]); gap < fetchGap {
				t.Fatalf("fetch %d came %v after the one before, want %v at least", i+1, gap, fetchGap)
			}
		}
		if got := len(s.asked); got < 300 {
			t.Errorf("fetches: got %d; too few for the test to prove anything", got)
		}
	})
}

// What is not an unknown kid does not make us fetch.
func TestNoFetchFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := privateKeys()
		s := newKeyServer(jwkA(), jwkB(), jwkOf(k.rsa.Public(), "", ""))
		s.config.Secret = userSecret
		v := newVerifier(t, s.config)
		wantUser7(t, v, tokenA(0))
		time.Sleep(fetchGap)
		for name, raw := range map[string]string{
			"forged with a known kid":              signWith(k.edOther, `{"alg":"EdDSA","kid":"a"}`, payload7),
			"known kid under another algorithm":    signWith(k.rsaOther, `{"alg":"RS256","kid":"a"}`, payload7),
			"forged without kid":                   signWith(k.edOther, `{"alg":"EdDSA"}`, payload7),
			"unknown kid under another's alg":      signWith(k.rsaOther, `{"alg":"PS256","kid":"x"}`, payload7),
			"unknown kid, forged with a secret":    hs256(operatorSecret, `{"alg":"HS256","kid":"x"}`, payload7),
			"unknown kid, no algorithm":            hs256(userSecret, `{"kid":"x"}`, payload7),
			"unknown kid that must be understood":  signWith(k.ed, `{"alg":"EdDSA","kid":"x","crit":["kid"]}`, payload7),
			"unknown kid in no token of RFC 7515":  "MARK",
			"unknown kid in a token that is long":  strings.Repeat("x", maxToken+1),
			"unknown kid, an empty one that is":    signWith(k.edOther, `{"alg":"EdDSA","kid":""}`, payload7),
			"unknown kid, null":                    signWith(k.edOther, `{"alg":"EdDSA","kid":null}`, payload7),
			"a kid that is a number and not known": signWith(k.ed, `{"alg":"EdDSA","kid":5}`, payload7),
		} {
			t.Log(name) // shown when it fails; there are no subtests in a bubble
			refused(t, v, raw, chat.TokenInvalid, "")
		}
		for name, raw := range map[string]string{
			"unknown kid, but a secret's":            hs256(userSecret, `{"alg":"HS256","kid":"x"}`, payload7),
			"unknown kid, but a key without one did": signWith(k.rsa, `{"alg":"RS256","kid":"x"}`, payload7),
			"no kid":                                 signWith(k.ec, `{"alg":"ES256"}`, payload7),
		} {
			t.Log(name)
			wantUser7(t, v, raw)
		}
		s.wantFetches(t, 1)
	})
}

func TestBadAnswers(t *testing.T) {
	huge := setOf(jwkB()) + strings.Repeat(" ", maxSet)
	tests := []struct {
		name  string
		reply transportFunc
		want  string
	}{
		{"not found", status(http.StatusNotFound, setOf(jwkB())), "status 404, not 200"},
		{"server error", status(http.StatusInternalServerError, setOf(jwkB())), "status 500"},
		{"no content", status(http.StatusNoContent, ""), "status 204"},
		{"not modified", status(http.StatusNotModified, ""), "status 304"},
		{"empty", status(http.StatusOK, ""), "not a key set"},
		{"a page", status(http.StatusOK, "<!DOCTYPE html>"), "not a key set"},
		{"null", status(http.StatusOK, "null"), "not a key set"},
		{"no keys", status(http.StatusOK, "{}"), "set has no keys"},
		{"none left", status(http.StatusOK, setOf()), "set has no keys"},
		{"none for us", status(http.StatusOK, setOf(`{"kty":"oct","k":"AAAA"}`, `{}`)), "none of the set's 2 keys can be used: key 1: has a private part"},
		{"half of it", status(http.StatusOK, setOf(jwkB())[:100]), "not a key set"},
		{"too large", status(http.StatusOK, huge), "longer than 256 KiB"},
		{"broken off", func(*http.Request) (*http.Response, error) {
			r := answer(http.StatusOK, "")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"keys":[`), failingReader{}))
			return r, nil
		}, "connection reset"},
		{"without end", func(r *http.Request) (*http.Response, error) {
			a := answer(http.StatusOK, "")
			a.Body = io.NopCloser(dripping{r.Context()})
			return a, nil
		}, "no answer within 3s"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newKeyServer(jwkA())
				v := newVerifier(t, s.config)
				wantUser7(t, v, tokenA(0))
				s.set(tc.reply)
				time.Sleep(fetchGap)
				refused(t, v, tokenB(0), chat.TokenInvalid, tc.want)
				synctest.Wait()
				s.wantFetches(t, 2)
				if got := s.lastEnd(t); got == nil || !strings.Contains(got.Error(), tc.want) || strings.Contains(got.Error(), "keys.example") {
					t.Errorf("OnFetch: got %v, want %q without the address", got, tc.want)
				}
				wantUser7(t, v, tokenA(1))
			})
		})
	}
}

func status(code int, body string) transportFunc {
	return func(*http.Request) (*http.Response, error) { return answer(code, body), nil }
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// dripping gives a byte a second until its request ends.
type dripping struct{ ctx context.Context }

func (d dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		return copy(p, " "), nil
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}

func TestRedirects(t *testing.T) {
	tests := []struct {
		name, url string
		hops      []string
		want      string // "" if followed
	}{
		{"same host", "https://keys.example/a", []string{"/b"}, ""},
		{"other host", "https://keys.example/a", []string{"https://cdn.example/b"}, ""},
		{"three hops", "https://keys.example/a", []string{"/b", "/c", "/d"}, ""},
		{"four hops", "https://keys.example/a", []string{"/b", "/c", "/d", "/e"}, "more than 3 redirects"},
		{"to http", "https://keys.example/a", []string{"http://keys.example/b"}, "redirect to another scheme"},
		{"to http on this machine", "https://keys.example/a", []string{"http://localhost/b"}, "redirect to another scheme"},
		{"from this machine to https", "http://127.0.0.1:8080/a", []string{"https://keys.example/b"}, "redirect to another scheme"},
		{"from this machine to elsewhere", "http://127.0.0.1:8080/a", []string{"http://keys.example/b"}, "could be forged on the way"},
		{"on this machine", "http://127.0.0.1:8080/a", []string{"http://[::1]/b", "http://localhost/c"}, ""},
		{"to a file", "https://keys.example/a", []string{"file:///etc/keys"}, "redirect to another scheme"},
		{"with a password", "https://keys.example/a", []string{"https://u:p@keys.example/a"}, "could be forged on the way"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newKeyServer()
				s.config.JWKSURL = tc.url
				hops := tc.hops
				s.set(func(r *http.Request) (*http.Response, error) {
					if len(hops) == 0 {
						return answer(http.StatusOK, setOf(jwkA())), nil
					}
					a := answer(http.StatusFound, "")
					a.Header.Set("Location", hops[0])
					hops = hops[1:]
					return a, nil
				})
				v := newVerifier(t, s.config)
				if tc.want == "" {
					wantUser7(t, v, tokenA(0))
				} else {
					refused(t, v, tokenA(0), chat.Overloaded, tc.want)
				}
			})
		})
	}
}

func TestJWKSURLRefuses(t *testing.T) {
	for _, address := range []string{"keys.example", "http://keys.example/", "ftp://keys.example/", "https://", "https:keys.example", "https://MARK:MARK@keys.example/",
		"http://127.0.0.1.example/", "http://10.0.0.1/", "http://localhost.example/", "/jwks.json", "https://keys.example/\n"} {
		v, err := New(Config{Secret: userSecret, JWKSURL: address})
		if err == nil {
			v.Close()
			t.Errorf("%q: got no error, want one", address)
		} else if got := err.Error(); !strings.HasPrefix(got, "token.jwks_url: want a URL") || strings.Contains(got, "MARK") {
			t.Errorf("%q: got %q", address, got)
		}
	}
}

func TestCloseEndsAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeyServer(jwkA())
		s.delay(time.Hour)
		v, err := New(s.config)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.wantFetches(t, 1)
		took(t, 0, v.Close)
		took(t, 0, v.Close)
		took(t, 0, func() { refused(t, v, tokenA(0), chat.Overloaded, "canceled") })
		time.Sleep(time.Hour)
		refused(t, v, tokenA(0), chat.Overloaded, "canceled")
		s.wantFetches(t, 1)
	})
}

// Over a real connection, with the client that is there when none is given.
func TestFetchOverHTTP(t *testing.T) {
	var bomb strings.Builder
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write([]byte(setOf(jwkA()) + strings.Repeat(" ", 32<<20)))
	z.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept"); !strings.Contains(got, "jwk-set+json") {
			t.Errorf("Accept: got %q", got)
		}
		_, _ = io.WriteString(w, setOf(jwkA()))
	})
	mux.HandleFunc("/bomb", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, bomb.String())
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	wantUser7(t, newVerifier(t, Config{JWKSURL: server.URL + "/good"}), tokenA(0))
	refused(t, newVerifier(t, Config{JWKSURL: server.URL + "/bomb"}), tokenA(0), chat.Overloaded, "longer than 256 KiB")
	server.Close()
	refused(t, newVerifier(t, Config{JWKSURL: server.URL + "/good"}), tokenA(0), chat.Overloaded, "connection refused")
}
