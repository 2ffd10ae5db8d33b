package directory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// ClientOptions are set once. NewClient fills the times that are zero.
type ClientOptions struct {
	URL     string       // the room server; /check is added
	HTTP    *http.Client // its Timeout is not used
	Metrics *Metrics

	Timeout    time.Duration // of one question; 500 ms
	LiveFor    time.Duration // how long "live" is believed; 2 s
	NotLiveFor time.Duration // how long "not live" is believed; 1 s
	BreakAfter uint32        // failures in a row after which it is left alone; 5
	BreakFor   time.Duration // for how long, before one question tries it again; 1 s
}

// Client asks the platform's room server who is live. It implements
// [chat.Directory]. There is one question at a time for a presenter, whoever
// asks; answers are believed for a moment; and a server that keeps failing is
// left alone, but for a probe now and then.
type Client struct {
	opts    ClientOptions
	check   string
	fresh   *otter.Cache[string, chat.Word] // believed without asking
	last    *otter.Cache[string, chat.Word] // for while the room server fails
	breaker *gobreaker.CircuitBreaker[chat.Word]
}

var _ chat.Directory = (*Client)(nil)

const (
	maxAnswer   = 64 << 10         // bytes of an answer that are read
	maxDigits   = 19               // of a broadcast's id that is a number
	maxRooms    = 100_000          // presenters whose answers are remembered
	rememberFor = 60 * time.Second // the desk trusts a last word for half of it
)

// errAsked is an answer to the question, not a sign of how the room server is:
// anybody may ask for rooms that it does not know.
var errAsked = errors.New("the room server refused the question")

// NewClient makes a client; Close ends it.
func NewClient(o ClientOptions) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("directory.url: %q is not an address such as http://room-server:8080", o.URL)
	}
	for set, otherwise := range map[*time.Duration]time.Duration{
		&o.Timeout: 500 * time.Millisecond, &o.LiveFor: 2 * time.Second, &o.NotLiveFor: time.Second, &o.BreakFor: time.Second} {
		if *set == 0 {
			*set = otherwise
		}
	}
	if o.BreakAfter == 0 {
		o.BreakAfter = 5
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxAnswer}}
	}
	asked := *o.HTTP
	asked.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &asked
	c := &Client{opts: o, check: base.JoinPath("check").String()}
	c.fresh = otter.Must(&otter.Options[string, chat.Word]{MaximumSize: maxRooms,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, chat.Word]) time.Duration {
			if e.Value.Live {
				return o.LiveFor
			}
			return o.NotLiveFor
		})})
	c.last = otter.Must(&otter.Options[string, chat.Word]{MaximumSize: maxRooms,
		ExpiryCalculator: otter.ExpiryWriting[string, chat.Word](rememberFor)})
	c.breaker = gobreaker.NewCircuitBreaker[chat.Word](gobreaker.Settings{
		Timeout:       o.BreakFor,
		IsSuccessful:  func(err error) bool { return err == nil || errors.Is(err, errAsked) },
		ReadyToTrip:   func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= o.BreakAfter },
		OnStateChange: func(_ string, _, to gobreaker.State) { o.Metrics.breaker(to == gobreaker.StateOpen) },
	})
	return c, nil
}

// Close ends the caches' goroutines.
func (c *Client) Close() {
	c.fresh.StopAllGoroutines()
	c.last.StopAllGoroutines()
	c.opts.HTTP.CloseIdleConnections()
}

// Live implements [chat.Directory].
func (c *Client) Live(ctx context.Context, room string) (chat.Word, error) {
	// Whoever waits for the same answer must not lose it because the first to
	// ask went away.
	word, err := c.fresh.Get(context.WithoutCancel(ctx), room, otter.LoaderFunc[string, chat.Word](c.load))
	if err != nil {
		last, _ := c.last.GetIfPresent(room)
		return last, err
	}
	return word, nil
}

func (c *Client) load(ctx context.Context, room string) (chat.Word, error) {
	word, err := c.breaker.Execute(func() (chat.Word, error) {
		start := time.Now()
		word, err := c.ask(ctx, room)
		c.opts.Metrics.asked(err, time.Since(start))
		return word, err
	})
	if err == nil {
		c.last.Set(room, word)
	}
	return word, err
}

func (c *Client) ask(ctx context.Context, room string) (chat.Word, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	question, err := json.Marshal(map[string]string{"presenterIdx": room})
	if err != nil {
		return chat.Word{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.check, bytes.NewReader(question))
	if err != nil {
		return chat.Word{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := c.opts.HTTP.Do(req)
	if err != nil {
		return chat.Word{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return chat.Word{}, err
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests:
		return chat.Word{}, fmt.Errorf("%w: %s", errAsked, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return chat.Word{}, fmt.Errorf("the room server answered %s", resp.Status)
	case len(data) > maxAnswer:
		return chat.Word{}, fmt.Errorf("the room server's answer is larger than %d bytes", maxAnswer)
	}
	return parseAnswer(data)
}

// parseAnswer reads {"data":{"alive":true,"roomIdx":881}}. What is neither a
// yes nor a no is an error: it must not end anybody's broadcast.
func parseAnswer(data []byte) (chat.Word, error) {
	var answer struct {
		Data struct {
			Alive   *bool           `json:"alive"`
			RoomIdx json.RawMessage `json:"roomIdx"`
		} `json:"data"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return chat.Word{}, fmt.Errorf("the room server's answer cannot be read: %w", err)
	}
	if answer.Data.Alive == nil {
		return chat.Word{}, errors.New("the room server's answer has no data.alive")
	}
	word := chat.Word{Live: *answer.Data.Alive, At: time.Now()}
	raw := string(answer.Data.RoomIdx)
	if raw == "" || raw == "null" || raw == `""` {
		return word, nil
	}
	if raw[0] != '"' && (len(raw) > maxDigits || strings.Trim(raw, "0123456789") != "") {
		return chat.Word{}, fmt.Errorf("the room server's data.roomIdx %.80q is neither a string nor an integer of 1 to %d digits", raw, maxDigits)
	}
	if json.Unmarshal(answer.Data.RoomIdx, &word.Broadcast) != nil {
		word.Broadcast = raw // a number is its decimal text
	}
	if !chat.ValidID(word.Broadcast) {
		return chat.Word{}, fmt.Errorf("the room server's data.roomIdx %.80q is not the id of a broadcast", raw)
	}
	return word, nil
}

// Metrics are what the client tells of the room server.
type Metrics struct {
	took   *prometheus.HistogramVec
	broken prometheus.Gauge
}

// NewMetrics registers the client's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hanmadi_directory_request_seconds", Help: "Time of questions to the room server, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 11)}, []string{"outcome"}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hanmadi_directory_broken", Help: "1 while the room server is left alone because it keeps failing."}),
	}
	m.took.WithLabelValues("ok")
	m.took.WithLabelValues("error")
	reg.MustRegister(m.took, m.broken)
	return m
}

func (m *Metrics) asked(err error, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.took.WithLabelValues(outcome).Observe(took.Seconds())
}

func (m *Metrics) breaker(open bool) {
	m.broken.Set(0)
	if open {
		m.broken.Set(1)
	}
}
