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
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
	"github.com/hanmadi/hanmadi/internal/seal"
)

// BenchmarkFollowers says 200 lines a second, which is what a room may have, to
// followers over loopback, and reports how many rows reach one for a second of
// CPU, the clients' reading included: with the pause that lets lines share a
// write, and with none.
func BenchmarkFollowers(b *testing.B) {
	for _, followers := range []int{100, 1000} {
		b.Run(fmt.Sprint(followers, "/pause"), func(b *testing.B) { benchmarkFollowers(b, followers, 0) })
		b.Run(fmt.Sprint(followers, "/no_pause"), func(b *testing.B) { benchmarkFollowers(b, followers, time.Nanosecond) })
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
	for range followers {
		go discard(b, server.Listener.Addr().String())
	}
	for hub.following.Load() < int64(followers) {
		time.Sleep(time.Millisecond)
	}

	used := cpuTime(b)
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		time.Sleep(time.Until(began.Add(time.Duration(i) * 5 * time.Millisecond)))
		if _, err := desk.Send(b.Context(), chat.Draft{Room: "7", User: chat.User{ID: "42", Nickname: "하늘"}, Text: fmt.Sprint("안녕하세요 ", i)}); err != nil {
			b.Fatal(err)
		}
	}
	for !hub.level(headOf(b, log, "7")) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	used = cpuTime(b) - used
	b.ReportMetric(float64(b.N*followers)/used.Seconds(), "rows/cpu-s")
	b.ReportMetric(used.Seconds()/b.Elapsed().Seconds(), "cores")
}

// level reports whether every follower has all there is.
func (h *Hub) level(head int64) bool {
	_, followers := h.reading()
	return !slices.ContainsFunc(followers, func(f *follower) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.cursor < head
	})
}

// discard follows and throws away what comes.
func discard(b *testing.B, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: node\r\n\r\n")
	_, _ = io.Copy(io.Discard, bufio.NewReaderSize(conn, 16<<10))
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
