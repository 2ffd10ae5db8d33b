package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanmadi/hanmadi/internal/token"
)

// server is one run of a program that serves HTTP.
type server struct {
	cmd           *exec.Cmd
	listen, admin string
	ended         chan struct{}
	errors        bytes.Buffer
	secret        []byte
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// startHanmadi runs `hanmadi serve` on an empty log, with limits so high that
// they are judged and never met.
func (b *bench) startHanmadi(ctx context.Context, name string, env ...string) (*server, error) {
	dir := filepath.Join(b.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &server{secret: []byte(rand.Text() + rand.Text()), listen: freeAddress(), admin: freeAddress()}
	return s, s.start(ctx, dir, append([]string{
		"HANMADI_LISTEN=" + s.listen, "HANMADI_ADMIN_LISTEN=" + s.admin, "HANMADI_LOG_URL=sqlite:" + dir + "/hanmadi.db",
		"HANMADI_TOKEN_SECRET=" + string(s.secret), "HANMADI_DRAIN_OVER=0s", "HANMADI_LINK_PER_ADDRESS=20000",
		"HANMADI_LIMITS_USER_PER_30S=1000000", "HANMADI_LIMITS_ROOM_PER_S=1000000", "HANMADI_LIMITS_ADDRESS_PER_30S=1000000",
		"HANMADI_LOG_SEARCH=false",
	}, env...), b.Binary, "serve")
}

// startBare runs the bare server of this program.
func (b *bench) startBare(ctx context.Context) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{secret: []byte(rand.Text() + rand.Text()), listen: freeAddress()}
	return s, s.start(ctx, b.Dir, nil, self, "bare", s.listen)
}

func (s *server) start(ctx context.Context, dir string, env []string, name string, args ...string) error {
	s.cmd, s.ended = exec.Command(name, args...), make(chan struct{})
	s.cmd.Dir, s.cmd.Stderr = dir, &s.errors
	s.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GOGC=" + os.Getenv("GOGC")}, env...)
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { _ = s.cmd.Wait(); close(s.ended) }()
	probe := "http://" + s.listen + "/v1/rooms/p0"
	for range 300 {
		if resp, err := http.Get(probe); err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended at its start: %s", filepath.Base(name), s.errors.String())
		case <-ctx.Done():
			s.stop()
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.stop()
	return fmt.Errorf("%s does not answer", filepath.Base(name))
}

// stop ends the process and waits for it.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

// tokenOf makes a token for a user; extra makes it another token of the same user.
func (s *server) tokenOf(user, extra string) string {
	c := token.Claims{UserID: user, Nickname: "이름 " + user, Expires: time.Now().Add(time.Hour)}
	if extra != "" {
		c.Attrs = []byte(`{"n":"` + extra + `"}`)
	}
	raw, err := token.Mint(s.secret, c)
	if err != nil {
		panic(err) // the claims are ours
	}
	return raw
}

// cpu is the processor time that the process has used, in user and kernel.
func (s *server) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in brackets, which may hold spaces.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/…/stat cannot be read")
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, proc(5)
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil // USER_HZ is 100 on every Linux
}

// resident is the process's memory in bytes: VmRSS.
func (s *server) resident() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}

var errNoMetric = errors.New("there is no metric")

// metric sums a metric over its labels.
func (s *server) metric(name string) (float64, error) {
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	sum, found := 0.0, false
	scan := bufio.NewScanner(resp.Body)
	for scan.Scan() {
		rest, ok := strings.CutPrefix(scan.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found && scan.Err() == nil {
		return 0, fmt.Errorf("%w %s", errNoMetric, name)
	}
	return sum, scan.Err()
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type bareCmd struct {
	Listen string `arg:""`
}

// Run serves what every server must do at least: read the body, answer 201.
func (c *bareCmd) Run(ctx context.Context) error {
	server := &http.Server{Addr: c.Listen, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	})}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// syncTime is the median time of writing and syncing 4 KiB in the folder.
func (b *bench) syncTime() (time.Duration, error) {
	f, err := os.CreateTemp(b.Dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	page := make([]byte, 4096)
	var all latencies
	for range 300 {
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all.add(time.Since(start))
	}
	return all.quantile(0.5), nil
}
