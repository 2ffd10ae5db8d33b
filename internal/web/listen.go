package web

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hanmadi/hanmadi/internal/moderate"
	"github.com/hanmadi/hanmadi/internal/socket"
)

// NewHTTPServer makes a server that waits for nobody long: not for headers, not
// for a body, not for an answer to be taken, and not for the next request.
func NewHTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ConnContext: socket.Bound,
	}
}

// boundListener takes only so many connections from one address at a time.
type boundListener struct {
	net.Listener
	most    int
	exempt  func(netip.Addr) bool
	metrics *Metrics

	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu
}

// BoundListener bounds how many connections one address has open; further ones
// are closed unheard, which is all that can be said before TLS or HTTP. Exempt
// are the gateway's addresses: behind them is everybody.
func BoundListener(l net.Listener, most int, exempt func(netip.Addr) bool, metrics *Metrics) net.Listener {
	return &boundListener{Listener: l, most: most, exempt: exempt, metrics: metrics, open: map[netip.Addr]int{}}
}

// Accept implements [net.Listener].
func (l *boundListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		if err != nil || l.exempt(peer.Addr()) {
			return conn, nil
		}
		address := moderate.AddressOf(peer.Addr())
		if l.enter(address) {
			return &boundConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(address) })}, nil
		}
		l.metrics.overflow.Inc()
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset: nothing of it stays with us, not even TIME_WAIT
		}
		_ = conn.Close() // nobody is told anything
	}
}

func (l *boundListener) enter(address netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[address] >= l.most {
		return false
	}
	l.open[address]++
	return true
}

func (l *boundListener) leave(address netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[address]--; l.open[address] <= 0 {
		delete(l.open, address)
	}
}

// boundConn counts itself out when it is closed, by whoever has it then: a
// WebSocket outlives the server's handler.
type boundConn struct {
	net.Conn
	leave func()
}

// Close implements [net.Conn].
func (c *boundConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// SetWriteBuffer keeps the kernel's buffer within the sockets' reach.
func (c *boundConn) SetWriteBuffer(bytes int) error {
	if tcp, ok := c.Conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		return tcp.SetWriteBuffer(bytes)
	}
	return nil
}
