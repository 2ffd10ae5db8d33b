package web

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Metrics are what the HTTP face tells of itself.
type Metrics struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	refusals *prometheus.CounterVec
}

// NewMetrics registers the face's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_http_requests_total", Help: "Requests answered, by route and status."}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hanmadi_http_request_seconds", Help: "Time to the answer, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}, []string{"route"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_refusals_total", Help: "Requests refused, by code."}, []string{"code"}),
	}
	for code := range chat.Catalogue() {
		m.refusals.WithLabelValues(string(code))
	}
	reg.MustRegister(m.requests, m.took, m.refusals)
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
