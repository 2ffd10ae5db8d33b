package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// The answer follows the server's life: not there, ready, draining, gone.
func TestHealthFollowsTheServer(t *testing.T) {
	s := newServer(t, "serve", "HANMADI_DRAIN_OVER=1m")
	ask := func() called { return call("health", "--admin-listen="+s.admin) }
	ask().want(t, exitFailed, "connection refused")
	s.start()
	got := ask()
	got.want(t, exitOK)
	if got.out != "ready\n" {
		t.Errorf("stdout of a ready server: got %q, want ready", got.out)
	}
	t.Setenv("HANMADI_ADMIN_LISTEN", s.admin)
	call("health").want(t, exitOK)

	// Two links, so that the drain has something to spread over its time.
	for _, presenter := range []string{"7", "8"} {
		link := startProcess(t, s.dir, []string{"HANMADI_URL=" + s.url(""), "HANMADI_TOKEN=" + mint(t, presenter, "")}, binary, "listen")
		eventually(t, "the link of "+presenter, func() bool { return strings.Contains(link.err.String(), "linked") })
	}
	s.signal(syscall.SIGTERM)
	eventually(t, "the drain is said", func() bool {
		got := ask()
		return got.code == exitFailed && strings.Contains(got.err, "not ready: draining")
	})
	s.kill()
	ask().want(t, exitFailed, "connection refused")
}

// Whatever else answers on the port is no hanmadi that is well.
func TestHealthOfSomethingElse(t *testing.T) {
	for name, answer := range map[string]string{"text": "OK", "other JSON": `{"up":true}`, "nothing": ""} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(answer)) }))
		got := call("health", "--admin-listen="+strings.TrimPrefix(other.URL, "http://"))
		other.Close()
		if got.code != exitFailed || !strings.Contains(got.err, "is not hanmadi's") {
			t.Errorf("%s: got code %d and %q, want 1 and that it is another", name, got.code, got.err)
		}
	}
}

func TestHealthGivesUp(t *testing.T) {
	hold := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(hold)
	call("health", "--timeout=50ms", "--admin-listen="+strings.TrimPrefix(slow.URL, "http://")).want(t, exitFailed, "deadline exceeded")
}

func TestDialable(t *testing.T) {
	for listen, want := range map[string]string{
		":8081": "127.0.0.1:8081", "0.0.0.0:8081": "127.0.0.1:8081", "[::]:8081": "[::1]:8081",
		"127.0.0.1:1": "127.0.0.1:1", "192.0.2.7:8081": "192.0.2.7:8081", "[2001:db8::1]:2": "[2001:db8::1]:2", "localhost:3": "localhost:3",
	} {
		if got, err := dialable(listen); err != nil || got != want {
			t.Errorf("%s: got %s (%v), want %s", listen, got, err, want)
		}
	}
	call("health", "--admin-listen=8081").want(t, exitUsage, "admin_listen")
}
