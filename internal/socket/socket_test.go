package socket

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bound = 1 << 10 // of messages in these tests

// accepting is a server over real TCP that hands over what it accepts.
type accepting struct {
	*httptest.Server
	conns chan *Conn
}

func newAccepting(t *testing.T) *accepting {
	t.Helper()
	a := &accepting{conns: make(chan *Conn, 1)}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := Accept(w, r, bound); err == nil {
			a.conns <- conn
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *accepting) url() string { return "ws" + strings.TrimPrefix(a.URL, "http") }

// pair is two ends of one WebSocket, both of them ours.
func pair(t *testing.T) (accepted, dialled *Conn) {
	t.Helper()
	a := newAccepting(t)
	dialled, status, err := Dial(t.Context(), a.url(), nil, bound)
	if err != nil || status != http.StatusSwitchingProtocols {
		t.Fatalf("dial: got status %d, %v; want 101", status, err)
	}
	accepted = <-a.conns
	t.Cleanup(accepted.Drop)
	t.Cleanup(dialled.Drop)
	return accepted, dialled
}

// foreign is an accepted connection and the end of another library.
func foreign(t *testing.T) (*Conn, *websocket.Conn) {
	t.Helper()
	a := newAccepting(t)
	ws, _, err := websocket.Dial(t.Context(), a.url(), nil)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	accepted := <-a.conns
	t.Cleanup(accepted.Drop)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return accepted, ws
}

func TestTextCrossesBothWays(t *testing.T) {
	accepted, dialled := pair(t)
	for _, way := range []struct {
		name     string
		from, to *Conn
	}{{"to the server", dialled, accepted}, {"to the client", accepted, dialled}} {
		for _, text := range []string{"안녕하세요", "", strings.Repeat("x", bound)} {
			if err := way.from.Write([]byte(text), time.Minute); err != nil {
				t.Fatalf("%s: write %d bytes: %v", way.name, len(text), err)
			}
			if got, err := way.to.Read(); err != nil || string(got) != text {
				t.Errorf("%s: got %q, %v; want %q", way.name, got, err, text)
			}
		}
	}
}

func TestReadRefusesWhatIsNoTextWithinTheBoundAndGoesOn(t *testing.T) {
	long := []byte(strings.Repeat("x", bound+1))
	for _, tt := range []struct {
		name string
		send func(context.Context, *websocket.Conn) error
		want error
	}{
		{"a byte over the bound", func(ctx context.Context, ws *websocket.Conn) error { return ws.Write(ctx, websocket.MessageText, long) }, ErrTooLarge},
		{"a megabyte", func(ctx context.Context, ws *websocket.Conn) error {
			return ws.Write(ctx, websocket.MessageText, make([]byte, 1<<20))
		}, ErrTooLarge},
		{"in many fragments", func(ctx context.Context, ws *websocket.Conn) error {
			w, err := ws.Writer(ctx, websocket.MessageText)
			for range 100 {
				if err == nil {
					_, err = w.Write(long)
				}
			}
			return errors.Join(err, w.Close())
		}, ErrTooLarge},
		{"a binary message", func(ctx context.Context, ws *websocket.Conn) error {
			return ws.Write(ctx, websocket.MessageBinary, long[:9])
		}, ErrNotText},
		{"a large binary message", func(ctx context.Context, ws *websocket.Conn) error {
			return ws.Write(ctx, websocket.MessageBinary, long)
		}, ErrNotText},
	} {
		t.Run(tt.name, func(t *testing.T) {
			accepted, ws := foreign(t)
			sent := make(chan error, 1)
			go func() {
				sent <- errors.Join(tt.send(t.Context(), ws), ws.Write(t.Context(), websocket.MessageText, []byte("다음")))
			}()
			if _, err := accepted.Read(); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			}
			if got, err := accepted.Read(); err != nil || string(got) != "다음" {
				t.Errorf("the next message: got %q, %v", got, err)
			}
			if err := <-sent; err != nil {
				t.Errorf("send: %v", err)
			}
		})
	}
}

// A peer that begins a message and goes on for ever is stopped at the bound,
// not at the message's end: until then all of it would be held.
func TestAMessageOverTheBoundIsNotHeld(t *testing.T) {
	accepted, ws := foreign(t)
	accepted.ReadBy(time.Now().Add(15 * time.Second))
	endless, err := ws.Writer(t.Context(), websocket.MessageText)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := endless.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Read(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("64 KiB of a message without an end: got %v, want %v", err, ErrTooLarge)
	}
}

func TestTheCloseCodeArrives(t *testing.T) {
	t.Run("from us", func(t *testing.T) {
		accepted, ws := foreign(t)
		if err := accepted.Close(4500, "replaced", time.Second); err != nil {
			t.Fatal(err)
		}
		_, _, err := ws.Read(t.Context())
		var ce websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != 4500 || ce.Reason != "replaced" {
			t.Errorf("the peer sees %v, want 4500 replaced", err)
		}
		if _, err := accepted.Read(); err == nil {
			t.Error("the peer's answer did not end Read")
		}
		if err := accepted.Write([]byte("x"), time.Second); err == nil {
			t.Error("something could be written after the close")
		}
	})
	t.Run("from the peer", func(t *testing.T) {
		accepted, ws := foreign(t)
		closed := make(chan error, 1)
		go func() { closed <- ws.Close(4321, "까닭") }()
		_, err := accepted.Read()
		if code, reason := CloseCode(err); code != 4321 || reason != "까닭" {
			t.Errorf("got %d %q, want 4321 까닭", code, reason)
		}
		if err := <-closed; err != nil {
			t.Errorf("the peer's close was not answered: %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		accepted, dialled := pair(t)
		dialled.Drop()
		_, err := accepted.Read()
		if code, _ := CloseCode(err); code != 1006 {
			t.Errorf("after %v: got %d, want 1006", err, code)
		}
	})
}

func TestDialTellsTheStatusOfARefusal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header.Get("Token"), "secret"; got != want {
			t.Errorf("header: got %q, want %q", got, want)
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer server.Close()
	_, status, err := Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), http.Header{"Token": {"secret"}}, bound)
	if err == nil || status != http.StatusForbidden {
		t.Errorf("got status %d, %v; want 403 and an error", status, err)
	}
	server.Close()
	if _, status, err := Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil, bound); err == nil || status != 0 {
		t.Errorf("nobody there: got status %d, %v; want 0 and an error", status, err)
	}
}

func TestAcceptAnswersWhatIsNoUpgrade(t *testing.T) {
	a := newAccepting(t)
	resp, err := http.Get(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestUpgradableTellsWebSocketsFromOtherRequests(t *testing.T) {
	plain := httptest.NewRequest(http.MethodGet, "/", nil)
	if Upgradable(plain) {
		t.Error("a plain request is taken for a WebSocket")
	}
	plain.Header.Set("Connection", "keep-alive, Upgrade")
	plain.Header.Set("Upgrade", "WebSocket")
	plain.Header.Set("Sec-WebSocket-Version", "13")
	plain.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if !Upgradable(plain) {
		t.Error("a request for a WebSocket is not taken for one")
	}
	for name, value := range map[string]string{"Sec-WebSocket-Version": "12", "Sec-WebSocket-Key": "c2hvcnQ="} {
		odd := plain.Clone(t.Context())
		if odd.Header.Set(name, value); Upgradable(odd) {
			t.Errorf("%s %s is taken for a WebSocket", name, value)
		}
	}
}

func TestReadEndsWhenItsTimeIsUp(t *testing.T) {
	accepted, _ := pair(t)
	accepted.ReadBy(time.Now().Add(10 * time.Millisecond))
	if _, err := accepted.Read(); !TimedOut(err) {
		t.Errorf("got %v, want it timed out", err)
	}
	if _, err := accepted.Read(); err == nil {
		t.Error("Read goes on after it has failed")
	}
}

func TestDropEndsAReadUnderWay(t *testing.T) {
	accepted, _ := pair(t)
	failed := make(chan error)
	go func() {
		_, err := accepted.Read()
		failed <- err
	}()
	accepted.Drop()
	if err := <-failed; err == nil || TimedOut(err) {
		t.Errorf("got %v, want an error that is no time-out", err)
	}
	accepted.Drop() // again does no harm
}

func TestAPingIsAnsweredByThePeersLibrary(t *testing.T) {
	accepted, ws := foreign(t)
	heard := make(chan struct{}, 1)
	accepted.OnPong(func() { heard <- struct{}{} })
	ctx := ws.CloseRead(t.Context()) // reads, as a browser does by itself
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = accepted.Read()
	}()
	if err := accepted.Ping(time.Second); err != nil {
		t.Fatal(err)
	}
	<-heard
	accepted.Drop()
	<-read
	<-ctx.Done()
}

// fill writes frames as large as a link's until one fails, and tells how many
// bytes were taken.
func fill(conn *Conn, within time.Duration) (taken int, err error) {
	frame := make([]byte, 14<<10)
	for i := range frame {
		frame[i] = 'x'
	}
	for {
		if err := conn.Write(frame, within); err != nil {
			return taken, err
		}
		taken += len(frame)
	}
}

// TestAPeerThatDoesNotReadTakesLittleAndNotForLong: what the kernels of both
// ends hold is all that a peer can make us send for nothing.
func TestAPeerThatDoesNotReadTakesLittleAndNotForLong(t *testing.T) {
	accepted, _ := pair(t)
	const within = 300 * time.Millisecond
	began := time.Now()
	taken, err := fill(accepted, within)
	took := time.Since(began)
	t.Logf("taken: %d KiB in %v", taken>>10, took.Round(time.Millisecond))
	if !TimedOut(err) {
		t.Errorf("got %v, want it timed out", err)
	}
	if took < within || took > within+5*time.Second {
		t.Errorf("it took %v, want %v and little more", took, within)
	}
	if most := 1 << 20; taken > most {
		t.Errorf("a peer that does not read was sent %d bytes, want at most %d", taken, most)
	}
	if err := accepted.Write([]byte("x"), time.Second); err == nil {
		t.Error("something could be written after a write that failed half-way")
	}
}

func TestHurryInterruptsAWriteUnderWay(t *testing.T) {
	accepted, _ := pair(t)
	failed := make(chan error, 1)
	go func() {
		_, err := fill(accepted, time.Hour)
		failed <- err
	}()
	// The write that will hang may not have begun yet; whoever hurries cannot know.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(time.Minute)
	for {
		select {
		case err := <-failed:
			if !TimedOut(err) {
				t.Errorf("got %v, want it timed out", err)
			}
			return
		case <-tick.C:
			accepted.Hurry(5 * time.Millisecond)
		case <-patience:
			t.Fatal("the write hangs a minute after it was hurried")
		}
	}
}

func TestRemoteAddrIsThePeers(t *testing.T) {
	accepted, dialled := pair(t)
	if got, want := accepted.RemoteAddr().String(), dialled.ws.NetConn().LocalAddr().String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, ok := accepted.RemoteAddr().(*net.TCPAddr); !ok {
		t.Errorf("got a %T, want a TCP address", accepted.RemoteAddr())
	}
}
