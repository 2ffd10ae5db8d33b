package chatlog

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hanmadi/hanmadi/internal/chat"
)

// Metrics are what the log tells of itself.
type Metrics struct {
	group  prometheus.Histogram
	commit prometheus.Histogram
	errors *prometheus.CounterVec
	tail   *prometheus.CounterVec
	held   prometheus.Gauge
	wal    prometheus.Gauge
	free   prometheus.Gauge
}

// NewMetrics registers the log's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hanmadi_log_group_rows", Help: "Rows that one commit brought to the disk together.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hanmadi_log_append_seconds", Help: "Time from taking a group of rows to its durable commit.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 15)}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_log_errors_total", Help: "Groups that could not be written, by outcome: surely not written, or unknown."}, []string{"outcome"}),
		tail: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hanmadi_log_tail_reads_total", Help: "Reads of the newest rows, answered from memory (hit) or by the store (miss)."}, []string{"result"}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hanmadi_log_tail_bytes", Help: "Bytes of rows held in memory, estimated."}),
		wal: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hanmadi_log_wal_bytes", Help: "Size of the write-ahead log that is not folded into the file yet, looked at every second."}),
		free: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hanmadi_log_disk_free_bytes", Help: "Free space on the log's disk, looked at every second. Appends stop below log.min_free."}),
	}
	for _, outcome := range []string{"unavailable", "unknown"} {
		m.errors.WithLabelValues(outcome)
	}
	for _, result := range []string{"hit", "miss"} {
		m.tail.WithLabelValues(result)
	}
	reg.MustRegister(m.group, m.commit, m.errors, m.tail, m.held, m.wal, m.free)
	return m
}

// orNew lets tools and tests open a log without metrics.
func (m *Metrics) orNew() *Metrics {
	if m == nil {
		return NewMetrics(prometheus.NewRegistry())
	}
	return m
}

func (m *Metrics) committed(rows int, took time.Duration) {
	if rows > 0 {
		m.group.Observe(float64(rows))
		m.commit.Observe(took.Seconds())
	}
}

func (m *Metrics) failed(err error) {
	outcome := "unavailable"
	if errors.Is(err, chat.ErrOutcomeUnknown) {
		outcome = "unknown"
	}
	m.errors.WithLabelValues(outcome).Inc()
}

// IndexMetrics are what the search index tells of itself.
type IndexMetrics struct {
	behind  prometheus.Gauge
	indexed prometheus.Counter
	errors  prometheus.Counter
}

// NewIndexMetrics registers the index's metrics.
func NewIndexMetrics(reg prometheus.Registerer) *IndexMetrics {
	m := &IndexMetrics{
		behind: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "hanmadi_search_rows_behind", Help: "Rows of the log that the search index has not taken in yet. They are found all the same, but slowly."}),
		indexed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hanmadi_search_indexed_rows_total", Help: "Rows that the search index has taken in."}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hanmadi_search_errors_total", Help: "Times that writing the search index failed; it tries again."}),
	}
	reg.MustRegister(m.behind, m.indexed, m.errors)
	return m
}

func (m *IndexMetrics) orNew() *IndexMetrics {
	if m == nil {
		return NewIndexMetrics(prometheus.NewRegistry())
	}
	return m
}
