package socket

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
)

// TestAcceptBoundsTheSendBuffer reads back what the kernel made of it: Linux
// doubles what is asked for, to account for its own bookkeeping.
func TestAcceptBoundsTheSendBuffer(t *testing.T) {
	accepted, dialled := pair(t)
	got := sendBuffer(t, accepted)
	if want := 2 * SendBuffer; got != want {
		t.Errorf("SO_SNDBUF of an accepted connection: got %d, want %d", got, want)
	}
	t.Logf("accepted: %d bytes; dialled, as the system gives it: %d", got, sendBuffer(t, dialled))
}

// TestBoundBoundsWhatStaysHTTP is for the streams of an HTTP server.
func TestBoundBoundsWhatStaysHTTP(t *testing.T) {
	conns := make(chan net.Conn, 1)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		ctx = Bound(ctx, conn)
		conns <- conn
		return ctx
	}
	server.Start()
	defer server.Close()
	client, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if got, want := sendBufferOf(t, <-conns), 2*SendBuffer; got != want {
		t.Errorf("SO_SNDBUF of an HTTP connection: got %d, want %d", got, want)
	}
}

func sendBuffer(t *testing.T, conn *Conn) (size int) {
	t.Helper()
	return sendBufferOf(t, conn.ws.NetConn())
}

func sendBufferOf(t *testing.T, conn net.Conn) (size int) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		size, optErr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	})
	if err != nil || optErr != nil {
		t.Fatalf("getsockopt: %v, %v", err, optErr)
	}
	return size
}
