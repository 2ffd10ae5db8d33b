package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
)

// pipes is a listener whose connections are pipes from addresses of choice.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return pipeAddr("pipe") }

// dial connects from an address, and gives our end.
func (p *pipes) dial(from string) net.Conn {
	near, far := net.Pipe()
	p.conns <- &pipeConn{Conn: far, from: from}
	return near
}

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

type pipeConn struct {
	net.Conn
	from   string
	buffer atomic.Int64
}

func (c *pipeConn) RemoteAddr() net.Addr       { return pipeAddr(c.from) }
func (c *pipeConn) SetWriteBuffer(n int) error { c.buffer.Store(int64(n)); return nil }

// isOpen reports whether the other end still has the connection.
func isOpen(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, context.DeadlineExceeded) || isTimeout(err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func TestConnectionsPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, reg := newPipes(), prometheus.NewRegistry()
		gateway := netip.MustParsePrefix("10.0.0.0/8")
		l := BoundListener(inner, 2, gateway.Contains, NewMetrics(reg))
		var accepted []net.Conn
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted = append(accepted, c)
			}
		}()
		dial := func(from string) bool {
			c := inner.dial(from)
			synctest.Wait()
			return isOpen(c)
		}
		for _, c := range []struct {
			from string
			want bool
		}{
			{"192.0.2.1:1000", true}, {"192.0.2.1:1001", true}, {"192.0.2.1:1002", false}, {"192.0.2.2:1000", true},
			{"[::ffff:192.0.2.1]:1003", false},                                                                              // the same, on a socket of both families
			{"[2001:db8::1]:1", true}, {"[2001:db8::2]:1", true}, {"[2001:db8::3]:1", false}, {"[2001:db8:0:1::1]:1", true}, // by network
			{"10.1.2.3:1", true}, {"10.1.2.3:2", true}, {"10.1.2.3:3", true}, // the gateway
		} {
			if got := dial(c.from); got != c.want {
				t.Errorf("%s: taken %t, want %t", c.from, got, c.want)
			}
		}
		if got := counted(t, reg, "hanmadi_connections_refused_total"); got != 3 {
			t.Errorf("%v connections were counted as refused, want 3", got)
		}
		for range 2 { // closing twice frees one place
			_ = accepted[0].Close()
		}
		if !dial("192.0.2.1:1004") || dial("192.0.2.1:1005") {
			t.Error("after one was closed there is room for one")
		}
		buffered, ok := accepted[1].(interface{ SetWriteBuffer(int) error })
		if !ok || buffered.SetWriteBuffer(7) != nil || accepted[1].(*boundConn).Conn.(*pipeConn).buffer.Load() != 7 {
			t.Error("the kernel's buffer is out of the sockets' reach")
		}
		_ = l.Close()
		<-done
		for _, c := range accepted {
			_ = c.Close()
		}
		if open := l.(*boundListener).open; len(open) != 0 {
			t.Errorf("all are closed, and these are counted: %v", open)
		}
	})
}

// A link is a connection that has left the server's hands: it counts until it
// ends.
func TestLinksCountAsConnections(t *testing.T) {
	f := newFixture(t, nil)
	metrics := NewMetrics(prometheus.NewRegistry())
	server := httptest.NewUnstartedServer(f.server.All())
	server.Listener = BoundListener(server.Listener, 2, func(netip.Addr) bool { return false }, metrics)
	server.Start()
	defer server.Close()
	dial := func(user string) *websocket.Conn {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		conn, _, err := websocket.Dial(ctx, server.URL+"/v1/presenter", &websocket.DialOptions{HTTPHeader: http.Header{"Token": {user}},
			HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
		if err != nil {
			return nil
		}
		return conn
	}
	first, second := dial("1"), dial("2")
	if first == nil || second == nil {
		t.Fatal("two links were not taken")
	}
	if third := dial("3"); third != nil {
		t.Error("a third was taken")
	}
	if got := read(t, second); !strings.Contains(got, `"welcome"`) {
		t.Errorf("the second link is told %s", got)
	}
	_ = first.CloseNow()
	deadline := time.After(15 * time.Second)
	for {
		if third := dial("3"); third != nil {
			_ = third.CloseNow()
			break
		}
		select {
		case <-deadline:
			t.Fatal("the first link is gone for 15 s, and its place is not free")
		default:
		}
	}
	_ = second.CloseNow()
}

// counted reads a counter that has no labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// slowServer answers 200 once it has read the body.
func slowServer(t *testing.T) (dial func() net.Conn, stop func()) {
	t.Helper()
	l := newPipes()
	server := NewHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}), slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	return func() net.Conn { return l.dial("192.0.2.1:1000") }, func() {
		_ = server.Close()
		<-ended
		time.Sleep(time.Second) // net/http lets an answer linger before it closes
	}
}

// A client that drips its request is cut off, however steadily it does so.
func TestSlowRequestsAreCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		first  string        // at once
		drip   string        // every second
		within time.Duration // from then
	}{
		"a header":          {"POST / HTTP/1.1\r\nHost: x\r\n", "X-A: b\r\n", 6 * time.Second},
		"nothing":           {"", "", 6 * time.Second},
		"a body":            {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\n\r\n", "x", 16 * time.Second},
		"a keep-alive idle": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "", 2*time.Minute + time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			dial, stop := slowServer(t)
			defer stop()
			conn := dial()
			defer conn.Close()
			start, dripped := time.Now(), make(chan struct{})
			go func() {
				defer close(dripped)
				_, err := io.WriteString(conn, c.first)
				for err == nil && c.drip != "" {
					time.Sleep(time.Second)
					_, err = io.WriteString(conn, c.drip)
				}
			}()
			_, err := io.Copy(io.Discard, conn)
			if took := time.Since(start); err != nil || took > c.within || took < c.within-3*time.Second {
				t.Errorf("%s: cut off after %s (%v), want %s", name, took, err, c.within)
			}
			_ = conn.Close()
			<-dripped
		})
	}
}

// What a request takes within its time is answered.
func TestUnhurriedRequestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := slowServer(t)
		defer stop()
		conn := dial()
		defer conn.Close()
		go func() {
			for i, part := range []string{"POST / HTTP/1.1\r\n", "Host: x\r\nContent-Length: 10\r\n\r\n", "01234", "56789"} {
				if i > 0 {
					time.Sleep(2 * time.Second)
				}
				_, _ = io.WriteString(conn, part)
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("got %v %v, want 200", resp, err)
		}
		_ = resp.Body.Close()
	})
}

func TestLargeHeadersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := slowServer(t)
		defer stop()
		conn := dial()
		defer conn.Close()
		go func() {
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", 64<<10)+"\r\n\r\n")
		}()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Fatalf("got %v %v, want 431", resp, err)
		}
		_ = resp.Body.Close()
	})
}
