package live

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what the links and followers tell of themselves.
type Metrics struct {
	reg       prometheus.Registerer
	links     *counts
	followers *counts
}

// counts are the figures of one kind of session.
type counts struct {
	kind     string
	closes   *prometheus.CounterVec
	rows     prometheus.Counter
	delivery prometheus.Histogram
}

// NewMetrics registers the metrics. They serve one hub.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	return &Metrics{reg: reg, links: newCounts(reg, "link"), followers: newCounts(reg, "follower")}
}

func newCounts(reg prometheus.Registerer, kind string) *counts {
	c := &counts{
		kind: kind,
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_" + kind + "_closes_total", Help: "Each " + kind + " that ended, by reason."}, []string{"reason"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hanmadi_" + kind + "_rows_total", Help: "Rows written to each " + kind + "."}),
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hanmadi_" + kind + "_delivery_seconds", Help: "Time from a row's own time until its frame was written to a " + kind + " (the frame's oldest row).",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18)}),
	}
	for _, label := range endings {
		c.closes.WithLabelValues(label)
	}
	reg.MustRegister(c.closes, c.rows, c.delivery)
	return c
}

func (c *counts) closed(label string) { c.closes.WithLabelValues(label).Inc() }

func (c *counts) delivered(f frame) {
	if f.skips {
		return
	}
	c.rows.Add(float64(f.to - f.after))
	c.delivery.Observe(max(0, time.Since(f.oldest.At).Seconds()))
}

// observe adds the figures that are read from the hub when somebody asks.
func (m *Metrics) observe(h *Hub) { m.reg.MustRegister(&lagCollector{h}) }

// lagCollector walks the sessions once a scrape.
type lagCollector struct{ hub *Hub }

var (
	linksDesc  = prometheus.NewDesc("hanmadi_links", "Links that are open.", nil, nil)
	followDesc = prometheus.NewDesc("hanmadi_followers", "Followers that are open.", nil, nil)
	rowsDesc   = prometheus.NewDesc("hanmadi_session_lag_rows", "Rows that the sessions have not been sent yet.", []string{"of"}, nil)
	timeDesc   = prometheus.NewDesc("hanmadi_session_lag_seconds", "How long the session that lags longest has had rows waiting with no progress.", nil, nil)
	relayDesc  = prometheus.NewDesc("hanmadi_session_unrelayed_rows", "Rows sent to links that their pages have not acknowledged as relayed.", []string{"of"}, nil)
)

// Describe implements [prometheus.Collector].
func (c *lagCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{linksDesc, followDesc, rowsDesc, timeDesc, relayDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *lagCollector) Collect(ch chan<- prometheus.Metric) {
	var rows, relay total
	var longest time.Duration
	links, followers := c.hub.reading()
	for _, l := range links {
		relay.add(l.unrelayed())
		longest = max(longest, rows.lagOf(&l.Session))
	}
	for _, f := range followers {
		longest = max(longest, rows.lagOf(&f.Session))
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(linksDesc, float64(len(links)))
	gauge(followDesc, float64(len(followers)))
	gauge(rowsDesc, float64(rows.all), "all")
	gauge(rowsDesc, float64(rows.most), "worst")
	gauge(timeDesc, longest.Seconds())
	gauge(relayDesc, float64(relay.all), "all")
	gauge(relayDesc, float64(relay.most), "worst")
}

// total is a sum, and the most that one session adds to it.
type total struct{ all, most int64 }

func (t *total) add(n int64) { t.all, t.most = t.all+n, max(t.most, n) }

func (t *total) lagOf(s *Session) (since time.Duration) {
	rows, since := s.lag()
	t.add(rows)
	return since
}

// reading lists the sessions that have a room.
func (h *Hub) reading() (links []*link, followers []*follower) {
	h.mu.Lock()
	links = slices.Collect(maps.Values(h.rooms))
	audiences := slices.Collect(maps.Values(h.audiences))
	h.mu.Unlock()
	for _, a := range audiences {
		followers = append(followers, a.all()...)
	}
	return links, followers
}

func (s *Session) lag() (rows int64, since time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows = s.head - s.cursor
	if rows > 0 && !s.behind.IsZero() {
		since = time.Since(s.behind)
	}
	return rows, since
}

func (l *link) unrelayed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relayed == 0 {
		return 0
	}
	return max(0, l.cursor-l.relayed)
}
