package web

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Metrics are what the HTTP face tells of itself.
type Metrics struct {
	reg      prometheus.Registerer
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	overflow prometheus.Counter
}

// NewMetrics registers the face's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		reg: reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_http_requests_total", Help: "Requests answered, by route and status."}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hanmadi_http_request_seconds", Help: "Time to the answer, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, []string{"route"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_refusals_total", Help: "Requests refused, by code."}, []string{"code"}),
		overflow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hanmadi_connections_refused_total", Help: "Connections closed at once because their address had too many."}),
	}
	for code := range chat.Catalogue() {
		m.refusals.WithLabelValues(string(code))
	}
	reg.MustRegister(m.requests, m.took, m.refusals, m.overflow)
	return m
}

// answered counts a request. How long a stream lived is no time to an answer.
func (m *Metrics) answered(rec *recorder, took time.Duration) {
	m.requests.WithLabelValues(rec.route, strconv.Itoa(rec.status)).Inc()
	if !rec.streams {
		m.took.WithLabelValues(rec.route).Observe(took.Seconds())
	}
}

func (m *Metrics) refused(code chat.Code) { m.refusals.WithLabelValues(string(code)).Inc() }

// observe adds what is read from the limits when somebody asks.
func (m *Metrics) observe(s *Server) { m.reg.MustRegister(&limitCollector{s}) }

// limitCollector counts the buckets once a scrape.
type limitCollector struct{ server *Server }

var (
	bucketsDesc = prometheus.NewDesc("hanmadi_limit_buckets", "Users, rooms and addresses whose bucket of lines or of refusals is not full.", []string{"of"}, nil)
	droppedDesc = prometheus.NewDesc("hanmadi_limit_buckets_dropped_total", "Buckets forgotten early because there were too many.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (c *limitCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- bucketsDesc
	ch <- droppedDesc
}

// Collect implements [prometheus.Collector].
func (c *limitCollector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	tried := &c.server.attempts
	held := map[string]int{"user_refusals": tried.users.Held(now), "address_refusals": tried.addresses.Held(now)}
	dropped := tried.users.Dropped() + tried.addresses.Dropped()
	if limits := c.server.Limits; limits != nil {
		held["user"], held["room"], held["address"] = limits.Held(now)
		dropped += limits.Dropped()
	}
	for of, n := range held {
		ch <- prometheus.MustNewConstMetric(bucketsDesc, prometheus.GaugeValue, float64(n), of)
	}
	ch <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(dropped))
}
