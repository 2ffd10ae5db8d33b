// Package socket is one WebSocket (RFC 6455): accepted or dialled, its text
// frames, and its close. It confines the WebSocket library.
//
// What it adds is what a server of many idle, unreliable peers needs: small
// buffers, a bounded kernel send buffer, a deadline on every write, and a close
// that can interrupt a write which the peer does not take.
package socket

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// SendBuffer is the kernel's send buffer per accepted connection, in bytes, as
// asked for; Linux doubles it. Without it a peer that does not read soaked up
// 3.7 MB before a write blocked.
const SendBuffer = 64 << 10

// upgrader has read and write buffers that fit a heartbeat; a larger frame is
// written around them. Idle connections hold no write buffer (the pool has it).
// Origins are checked by the caller, who knows which are configured.
var upgrader = websocket.Upgrader{
	ReadBufferSize:  512,
	WriteBufferSize: 1024,
	WriteBufferPool: &sync.Pool{},
	CheckOrigin:     func(*http.Request) bool { return true },
}

// Conn is a WebSocket. Read belongs to one goroutine, Write and Close to one
// other; the remaining methods may be called from any.
type Conn struct {
	ws         *websocket.Conn
	maxMessage int64
}

// The messages that Read refuses. It may be called again after them, so that
// whoever says goodbye for their sake still finds the peer's answer.
var (
	ErrNotText  = errors.New("socket: a binary message")
	ErrTooLarge = errors.New("socket: a message over the bound")
)

// Version is the one of the protocol that is spoken (RFC 6455).
const Version = "13"

// Upgradable reports whether a request asks for a WebSocket as it should. Accept
// answers others itself, with a status and a few English words.
func Upgradable(r *http.Request) bool {
	nonce, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-Websocket-Key"))
	return r.Method == http.MethodGet && websocket.IsWebSocketUpgrade(r) && r.Header.Get("Sec-Websocket-Version") == Version &&
		err == nil && len(nonce) == 16
}

// Accept upgrades a request. On error it has answered the request already. The
// handler should return soon after, which frees what net/http keeps for it.
// Messages over maxMessage bytes are refused.
func Accept(w http.ResponseWriter, r *http.Request, maxMessage int64) (*Conn, error) {
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	boundSendBuffer(ws.NetConn())
	return newConn(ws, maxMessage), nil
}

// Bound is for the ConnContext of an [http.Server]: it bounds the send buffer of
// connections that stay HTTP, as streams of events do.
func Bound(ctx context.Context, conn net.Conn) context.Context {
	boundSendBuffer(conn)
	return ctx
}

func boundSendBuffer(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetWriteBuffer(bytes int) error }); ok {
		_ = tcp.SetWriteBuffer(SendBuffer) // a hint; the write deadline is what bounds us
	}
}

// Dial connects to a ws:// or wss:// URL. When the server answered with
// something else than an upgrade, the status is returned beside the error.
func Dial(ctx context.Context, url string, header http.Header, maxMessage int64) (_ *Conn, status int, err error) {
	d := websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 10 * time.Second, ReadBufferSize: 4096, WriteBufferSize: 1024}
	ws, resp, err := d.DialContext(ctx, url, header)
	if err != nil {
		if resp != nil {
			status = resp.StatusCode
		}
		return nil, status, err
	}
	return newConn(ws, maxMessage), http.StatusSwitchingProtocols, nil
}

func newConn(ws *websocket.Conn, maxMessage int64) *Conn {
	return &Conn{ws: ws, maxMessage: maxMessage}
}

// Read returns the next text message. It holds no more of one than the bound;
// the library's own limit would answer with a close code of its choice. Every
// error but ErrNotText and ErrTooLarge is final.
func (c *Conn) Read() ([]byte, error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, err
	}
	if kind != websocket.TextMessage {
		return nil, ErrNotText
	}
	data, err := io.ReadAll(io.LimitReader(r, c.maxMessage+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > c.maxMessage {
		return nil, ErrTooLarge
	}
	return data, nil
}

// ReadBy sets when a Read, also one under way, fails at the latest; zero: never.
// Like every failure that is for good.
func (c *Conn) ReadBy(t time.Time) { _ = c.ws.NetConn().SetReadDeadline(t) }

// Write sends a text message, failing when the peer has not taken all of it in
// time. After an error nothing more can be sent.
func (c *Conn) Write(data []byte, within time.Duration) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	return c.ws.WriteMessage(websocket.TextMessage, data)
}

// Hurry makes a Write under way fail when it has not ended in time.
func (c *Conn) Hurry(within time.Duration) {
	_ = c.ws.NetConn().SetWriteDeadline(time.Now().Add(within))
}

// Ping asks for a sign of life that browsers give by themselves, see OnPong.
func (c *Conn) Ping(within time.Duration) error {
	return c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(within))
}

// OnPong sets what Read calls when the peer answers a ping. Set it before the
// first Read.
func (c *Conn) OnPong(heard func()) {
	c.ws.SetPongHandler(func(string) error { heard(); return nil })
}

// Close says goodbye with a code and a short reason (at most 123 bytes); the
// peer's answer ends Read. It does not end the connection, see Drop.
func (c *Conn) Close(code uint16, reason string, within time.Duration) error {
	return c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reason), time.Now().Add(within))
}

// Drop ends the connection at once, and with it every Read and Write.
func (c *Conn) Drop() { _ = c.ws.Close() }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

// CloseCode is the code with which the peer closed, and its reason; 1006 when
// the connection ended without one.
func CloseCode(err error) (code uint16, reason string) {
	var ce *websocket.CloseError
	if errors.As(err, &ce) {
		return uint16(ce.Code), ce.Text
	}
	return websocket.CloseAbnormalClosure, ""
}

// TimedOut reports that a Read or Write failed because its time was up. The
// library hides os.ErrDeadlineExceeded behind an error of its own.
func TimedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
