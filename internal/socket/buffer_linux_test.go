package socket

import (
	"net"
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

func sendBuffer(t *testing.T, conn *Conn) (size int) {
	t.Helper()
	raw, err := conn.ws.NetConn().(*net.TCPConn).SyscallConn()
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
