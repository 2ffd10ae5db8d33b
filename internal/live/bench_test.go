package live

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
)

// BenchmarkFollowers says 200 lines a second, which is what a room may have, to
// 1,000 followers over loopback, and reports how many rows reach a follower for
// a second of CPU, the clients' reading included: with the pause that lets lines
// share a write, and with none.
func BenchmarkFollowers(b *testing.B) {
	for name, each := range map[string]time.Duration{"pause": 0, "no_pause": time.Nanosecond} {
		b.Run(name, func(b *testing.B) { benchmarkFollowers(b, 1000, each) })
	}
}

func benchmarkFollowers(b *testing.B, followers int, each time.Duration) {
	key, err := seal.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	var desk *chat.Desk
	log := newTall()
	hub := NewHub(Options{Log: log, Key: key, Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
		NewID: newID, Verify: verify, PerDelivery: each, State: func(ctx context.Context, room string) (chat.State, error) { return desk.State(ctx, room) }})
	desk = chat.NewDesk(log, hub, chat.DeskOptions{NewID: newID, QueueFor: time.Hour})
	if _, _, err := desk.StartBroadcast(b.Context(), "7", chat.User{}, chat.Opening{ID: "B"}); err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = hub.Follow(w, r, Following{Room: "7"}) }))
	defer server.Close()
	defer hub.Drain(b.Context(), 0)
	var bytes atomic.Int64
	for range followers {
		go discard(b, server.Listener.Addr().String(), &bytes)
	}
	for hub.following.Load() < int64(followers) {
		time.Sleep(time.Millisecond)
	}

	began, at := cpuTime(b), time.NewTicker(5*time.Millisecond)
	defer at.Stop()
	b.ResetTimer()
	for i := range b.N {
		if _, err := desk.Send(b.Context(), chat.Draft{Room: "7", User: chat.User{ID: "42", Nickname: "하늘"}, Text: fmt.Sprint("안녕하세요 ", i)}); err != nil {
			b.Fatal(err)
		}
		<-at.C
	}
	for !hub.level() {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	used := (cpuTime(b) - began).Seconds()
	b.ReportMetric(float64(b.N*followers)/used, "rows/cpu-s")
	b.ReportMetric(used/b.Elapsed().Seconds(), "cores")
}

// level reports whether every follower has all there is.
func (h *Hub) level() bool {
	_, followers := h.reading()
	for _, f := range followers {
		f.mu.Lock()
		level := f.cursor == h.audiences["7"].head
		f.mu.Unlock()
		if !level {
			return false
		}
	}
	return true
}

// discard follows and throws away what comes.
func discard(b *testing.B, addr string, bytes *atomic.Int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: node\r\n\r\n")
	n, _ := io.Copy(io.Discard, bufio.NewReaderSize(conn, 16<<10))
	bytes.Add(n)
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
