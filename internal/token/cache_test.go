package token

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanmadi/hanmadi/internal/chat"
)

func TestLeeway(t *testing.T) {
	tests := []struct {
		name, claim string
		at          int64         // seconds from now
		wait        time.Duration // before asking
		want        chat.Code     // "" if accepted
	}{
		{"exp ahead", "exp", 10, 0, ""},
		{"exp 30 s ago but a moment", "exp", 10, 40*time.Second - 1, ""},
		{"exp 30 s ago", "exp", 10, 40 * time.Second, chat.TokenExpired},
		{"nbf 30 s ahead", "nbf", 40, 10 * time.Second, ""},
		{"nbf 30 s and a moment ahead", "nbf", 40, 10*time.Second - 1, chat.TokenInvalid},
		{"iat 30 s ahead", "iat", 40, 10 * time.Second, ""},
		{"iat 30 s and a moment ahead", "iat", 40, 10*time.Second - 1, chat.TokenInvalid},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVerifier(t, Config{Secret: userSecret})
				at := time.Now().Unix() + tc.at
				payload := fmt.Sprintf(`{"sub":"7","%s":%d}`, tc.claim, at)
				if tc.claim != "exp" {
					payload = fmt.Sprintf(`{"sub":"7","exp":%d,"%s":%d}`, farOff, tc.claim, at)
				}
				raw := hs256(userSecret, `{"alg":"HS256"}`, payload)
				time.Sleep(tc.wait)
				_, err := v.Verify(raw)
				if tc.want != "" {
					wantRefusal(t, err, tc.want, raw)
				} else if err != nil {
					t.Errorf("got error %v, want none", err)
				}
			})
		})
	}
}

func TestCacheExpiry(t *testing.T) {
	tests := []struct {
		name     string
		lifetime int64 // seconds
		cached   time.Duration
	}{
		{"long token", 3600, maxCachedFor},
		{"short token", 10, 10*time.Second + leeway},
		{"token in its leeway", -20, 10 * time.Second},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVerifier(t, Config{Secret: userSecret})
				raw := hs256(userSecret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"7","exp":%d}`, time.Now().Unix()+tc.lifetime))
				if _, err := v.Verify(raw); err != nil {
					t.Fatal(err)
				}
				wantCached := func(want bool) {
					t.Helper()
					if _, got := v.rules.Load().cache.GetIfPresent(sha256.Sum256([]byte(raw))); got != want {
						t.Errorf("%v later: got cached %v, want %v", tc.cached, got, want)
					}
				}
				time.Sleep(tc.cached - 1)
				wantCached(true)
				if _, err := v.Verify(raw); err != nil { // reading must not prolong it
					t.Error(err)
				}
				time.Sleep(1 * time.Nanosecond)
				wantCached(false)
				_, err := v.Verify(raw)
				if tc.lifetime > 60 {
					if err != nil {
						t.Errorf("after leaving the cache: got %v, want no error", err)
					}
				} else {
					wantRefusal(t, err, chat.TokenExpired, raw)
				}
			})
		})
	}
}

// The cache counts from when a token came in; what counts is the clock when it
// is used.
func TestCachedTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, Config{Secret: userSecret})
		raw := hs256(userSecret, `{"alg":"HS256"}`, fmt.Sprintf(`{"sub":"7","exp":%d}`, time.Now().Unix()+10))
		if _, err := v.Verify(raw); err != nil {
			t.Fatal(err)
		}
		key := cacheKey(sha256.Sum256([]byte(raw)))
		v.rules.Load().cache.SetExpiresAfter(key, time.Hour) // as though the clock had been set
		time.Sleep(40*time.Second - 1)
		if _, err := v.Verify(raw); err != nil {
			t.Errorf("just before its end: got %v, want no error", err)
		}
		time.Sleep(1 * time.Nanosecond)
		if _, ok := v.rules.Load().cache.GetIfPresent(key); !ok {
			t.Fatal("the token left the cache, so this test proves nothing")
		}
		_, err := v.Verify(raw)
		wantRefusal(t, err, chat.TokenExpired, raw)
	})
}

// The bubble of synctest fails the test if a goroutine outlives it.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, err := New(Config{Secret: userSecret})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if _, err := v.Verify(signed(fmt.Sprintf(`{"sub":"%d","exp":%%d}`, i))); err != nil {
				t.Fatal(err)
			}
		}
		v.Close()
		v.Close()
		if _, err := v.Verify(signed(`{"sub":"7","exp":%d}`)); err != nil {
			t.Errorf("after Close: got %v, want no error", err)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	v := newVerifier(t, Config{Secret: userSecret})
	if got, want := v.rules.Load().cache.GetMaximum(), uint64(100_000); got != want {
		t.Errorf("entries at most: got %d, want %d", got, want)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	v := newVerifier(t, Config{Secret: userSecret, OperatorSecret: operatorSecret})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprint((i + j) % 5)
				u, err := v.Verify(signed(`{"sub":"` + want + `","attrs":{"a":1},"exp":%d}`))
				if err != nil || u.ID != want {
					t.Errorf("got user %q, error %v; want user %q", u.ID, err, want)
				}
			}
		})
	}
	wg.Wait()
}
