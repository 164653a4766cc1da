package server

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/ratelimit"
)

// metrics are the counters of the public listener and of the calls it causes. Every label has a
// closed set of values, none of which a caller can add to, and none says who is meant.
type metrics struct {
	requests         *prometheus.CounterVec
	duration         *prometheus.HistogramVec
	inFlight         prometheus.Gauge
	mails            *prometheus.CounterVec
	notices          *prometheus.CounterVec
	limited          *prometheus.CounterVec
	limitsIn         *prometheus.GaugeVec
	upstream         *prometheus.CounterVec
	upstreamDuration *prometheus.HistogramVec
}

// The limits, by what they count. The decoys' refuses nobody: it saves a decoy.
const (
	limitIP        = "ip"
	limitRecipient = "recipient"
	limitDecoy     = "decoy"
)

// decoySent is among the outcomes of mails beside those of requests.
const decoySent = "decoy"

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_requests_total",
			Help: "Answers of the public listener, by status and by the code of the error body (empty for none).",
		}, []string{"status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "resetd_request_duration_seconds",
			Help:    "Time from the request's headers to its answer, on the beat of RESPONSE_QUANTUM.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 1.5, 2, 5, 10, 30},
		}, []string{"status"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "resetd_requests_in_flight",
			Help: "Valid requests that are being worked on or wait for their beat; MAX_IN_FLIGHT bounds them.",
		}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_mails_total",
			Help: "What became of each valid request (sent, no_account, suppressed, undelivered, failed), and the decoys that Mailgun accepted (decoy).",
		}, []string{"outcome"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_notices_total",
			Help: "What was noticed on the way: callback_replaced, redirect_replaced, decoys_used_up.",
		}, []string{"notice"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_limited_total",
			Help: "What the limits stopped: requests of a client (ip), mails to an address (recipient), decoys (decoy).",
		}, []string{"limit"}),
		limitsIn: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "resetd_limits_in",
			Help: "1 for where the limits are counted now, memory or redis, and 0 for the other.",
		}, []string{"store"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_upstream_requests_total",
			Help: "Calls of Supabase Auth and Mailgun, by outcome: ok, no_account, refused (the key or the message), failed, timeout.",
		}, []string{"upstream", "call", "outcome"}),
		upstreamDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "resetd_upstream_request_duration_seconds",
			Help:    "Time of each call of an upstream, to the last byte of its answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"upstream", "call"}),
	}
	registry.MustRegister(m.requests, m.duration, m.inFlight, m.mails, m.notices, m.limited, m.limitsIn, m.upstream, m.upstreamDuration)

	// Known from the start, so that a rate sees the first one.
	for _, kind := range []impl.EventKind{impl.Sent, impl.NoAccount, impl.Suppressed, impl.Undelivered, impl.Failed, decoySent} {
		m.mails.WithLabelValues(string(kind))
	}
	for _, kind := range []impl.EventKind{impl.CallbackReplaced, impl.RedirectReplaced, impl.DecoysUsedUp} {
		m.notices.WithLabelValues(string(kind))
	}
	for _, limit := range []string{limitIP, limitRecipient, limitDecoy} {
		m.limited.WithLabelValues(limit)
	}
	for _, c := range []call{generateLink, send, sendDecoy} {
		for _, outcome := range c.outcomes() {
			m.upstream.WithLabelValues(c.upstream, c.name, outcome)
		}
		m.upstreamDuration.WithLabelValues(c.upstream, c.name)
	}
	for _, fault := range faults {
		m.requests.WithLabelValues(strconv.Itoa(fault.answer.status), fault.answer.code)
	}
	for _, own := range []*answer{errInternal, errOverloaded, rateLimited(1)} {
		m.requests.WithLabelValues(strconv.Itoa(own.status), own.code)
	}
	m.requests.WithLabelValues("200", "")
	m.countLimitsIn(ratelimit.Memory)
	return m
}

func (m *metrics) countLimitsIn(store string) {
	for _, name := range []string{ratelimit.Memory, ratelimit.Redis} {
		m.limitsIn.WithLabelValues(name).Set(0)
	}
	m.limitsIn.WithLabelValues(store).Set(1)
}

func (m *metrics) saw(kind impl.EventKind) {
	switch kind {
	case impl.CallbackReplaced, impl.RedirectReplaced, impl.DecoysUsedUp:
		m.notices.WithLabelValues(string(kind)).Inc()
	default:
		m.mails.WithLabelValues(string(kind)).Inc()
	}
	switch kind {
	case impl.Suppressed:
		m.limited.WithLabelValues(limitRecipient).Inc()
	case impl.DecoysUsedUp:
		m.limited.WithLabelValues(limitDecoy).Inc()
	}
}

func (m *metrics) answered(status int, code string, took time.Duration) {
	m.requests.WithLabelValues(strconv.Itoa(status), code).Inc()
	m.duration.WithLabelValues(strconv.Itoa(status)).Observe(took.Seconds())
}
