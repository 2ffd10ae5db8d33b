package live

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what the links tell of themselves.
type Metrics struct {
	reg      prometheus.Registerer
	closes   *prometheus.CounterVec
	rows     prometheus.Counter
	delivery prometheus.Histogram
}

// NewMetrics registers the links' metrics. They serve one hub.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		reg: reg,
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_link_closes_total", Help: "Links that ended, by reason."}, []string{"reason"}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hanmadi_link_rows_total", Help: "Rows written to links."}),
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hanmadi_link_delivery_seconds", Help: "Time from a row's own time until its frame was written to a link (the frame's oldest row).",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 18)}),
	}
	for _, label := range endings {
		m.closes.WithLabelValues(label)
	}
	reg.MustRegister(m.closes, m.rows, m.delivery)
	return m
}

func (m *Metrics) closed(label string) { m.closes.WithLabelValues(label).Inc() }

func (m *Metrics) delivered(f frame) {
	m.rows.Add(float64(f.to - f.after))
	m.delivery.Observe(max(0, time.Since(f.oldest.At).Seconds()))
}

// observe adds the figures that are read from the hub when somebody asks.
func (m *Metrics) observe(h *Hub) { m.reg.MustRegister(&lagCollector{h}) }

// lagCollector walks the links once a scrape.
type lagCollector struct{ hub *Hub }

var (
	linksDesc = prometheus.NewDesc("hanmadi_links", "Links that are open.", nil, nil)
	rowsDesc  = prometheus.NewDesc("hanmadi_session_lag_rows", "Rows that the sessions have not been sent yet.", []string{"of"}, nil)
	timeDesc  = prometheus.NewDesc("hanmadi_session_lag_seconds", "How long the session that lags longest has had rows waiting with no progress.", nil, nil)
	relayDesc = prometheus.NewDesc("hanmadi_session_unrelayed_rows", "Rows sent to links that their pages have not acknowledged as relayed.", []string{"of"}, nil)
)

// Describe implements [prometheus.Collector].
func (c *lagCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{linksDesc, rowsDesc, timeDesc, relayDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *lagCollector) Collect(ch chan<- prometheus.Metric) {
	var links, rows, mostRows, unrelayed, mostUnrelayed int64
	var longest time.Duration
	for _, s := range c.hub.linked() {
		lag, since, notRelayed := s.lag()
		links++
		rows += lag
		mostRows = max(mostRows, lag)
		unrelayed += notRelayed
		mostUnrelayed = max(mostUnrelayed, notRelayed)
		longest = max(longest, since)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(linksDesc, float64(links))
	gauge(rowsDesc, float64(rows), "all")
	gauge(rowsDesc, float64(mostRows), "worst")
	gauge(timeDesc, longest.Seconds())
	gauge(relayDesc, float64(unrelayed), "all")
	gauge(relayDesc, float64(mostUnrelayed), "worst")
}

func (h *Hub) linked() []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Session, 0, len(h.rooms))
	for _, s := range h.rooms {
		all = append(all, s)
	}
	return all
}

func (s *Session) lag() (rows int64, since time.Duration, unrelayed int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows = s.head - s.cursor
	if rows > 0 && !s.behind.IsZero() {
		since = time.Since(s.behind)
	}
	if s.relayed > 0 {
		unrelayed = max(0, s.cursor-s.relayed)
	}
	return rows, since, unrelayed
}
