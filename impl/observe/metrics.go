package observe

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/clientip"
	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/server"
)

// metrics are the metrics of requests, deliveries and calls of upstreams. Each label has a closed set of values,
// to which no caller can add, and none identifies a person.
type metrics struct {
	requests         *prometheus.CounterVec
	duration         *prometheus.HistogramVec
	mails            *prometheus.CounterVec
	deliveryDuration *prometheus.HistogramVec
	deliveryTries    prometheus.Histogram
	verdict          *prometheus.GaugeVec
	notices          *prometheus.CounterVec
	limited          *prometheus.CounterVec
	limitedClients   prometheus.Counter
	clients          [clientip.Sources]struct{ served, limited prometheus.Counter }
	limitsIn         *prometheus.GaugeVec
	requestsIn       *prometheus.GaugeVec
	upstream         *prometheus.CounterVec
	upstreamDuration *prometheus.HistogramVec
	givenUp          prometheus.Counter
	unreadable       prometheus.Counter
	takenOver        prometheus.Counter
	registry         prometheus.Registerer
}

// The limits, by what they count.
const (
	limitIP        = "ip"
	limitRecipient = "recipient"
)

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_requests_total",
			Help: "Answers of the public listener, by status and by the code of the error body (empty for none).",
		}, []string{"status", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "resetd_request_duration_seconds",
			Help:    "Time from the request's headers to its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .1, .5, 1, 5, 10},
		}, []string{"status"}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_mails_total",
			Help: "How each accepted request ended (sent, no_account, banned, undelivered, and unconfirmed: Mailgun did not say whether it has the mail), and those for which nothing was done (suppressed: by the limit of the address, or for a newer request).",
		}, []string{"outcome"}),
		deliveryDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "resetd_delivery_duration_seconds",
			Help:    "Time from a request's acceptance to the end of its delivery.",
			Buckets: []float64{.25, .5, 1, 2, 5, 15, 60, 300, 900, 3600},
		}, []string{"outcome"}),
		deliveryTries: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "resetd_delivery_tries",
			Help:    "Attempts of each delivery that has ended.",
			Buckets: []float64{1, 2, 3, 5, 10, 20, 40},
		}),
		verdict: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "resetd_probe_verdict",
			Help: "1 for the latest verdict on an upstream, and 0 for the others: ok, down, key_refused (callers are told of these two), limited (a quota, or another refusal), unknown (nothing was asked, because no request came).",
		}, []string{"upstream", "verdict"}),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_notices_total",
			Help: "What was noticed on the way: callback_replaced, redirect_replaced, and preflights that browsers take for a no (cors_origin, cors_method, cors_headers).",
		}, []string{"notice"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "resetd_limited_total",
			Help: "What the limits stopped: requests of a client (ip), mails to an address (recipient).",
		}, []string{"limit"}),
		limitsIn: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "resetd_limits_in",
			Help: "1 for where the limits are counted now, memory or redis, and 0 for the other.",
		}, []string{"store"}),
		requestsIn: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "resetd_requests_in",
			Help: "1 for where accepted requests are kept now until they are delivered, memory or redis, and 0 for the other.",
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
		givenUp: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "resetd_given_up_total",
			Help: "Requests that were given up because too many were pending (six times MAX_ACCEPTED).",
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "resetd_unreadable_requests_total",
			Help: "Requests in Redis that were encrypted under another Supabase key, and dropped.",
		}),
		takenOver: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "resetd_taken_over_requests_total",
			Help: "Requests in Redis that were taken over from an instance that had ended.",
		}),
		registry: registry,
	}
	clients := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "resetd_clients_total",
		Help: "Requests of the operation, by where the address of their client was taken from (connection, header; not_trusted, missing and unusable: the connection, which may be a proxy with many clients), and whether the limit of clients refused them.",
	}, []string{"client_from", "limited"})
	for source := range clientip.Sources {
		m.clients[source].served = clients.WithLabelValues(source.String(), "no")
		m.clients[source].limited = clients.WithLabelValues(source.String(), "yes")
	}
	registry.MustRegister(clients, m.requests, m.duration, m.mails, m.deliveryDuration, m.deliveryTries, m.verdict, m.notices, m.limited, m.limitsIn, m.requestsIn, m.upstream, m.upstreamDuration, m.givenUp, m.unreadable, m.takenOver)

	// Known from the start, so that a rate sees the first one.
	for _, kind := range []impl.EventKind{impl.Sent, impl.NoAccount, impl.Banned, impl.Suppressed, impl.Unconfirmed, impl.Undelivered} {
		m.mails.WithLabelValues(string(kind))
		m.deliveryDuration.WithLabelValues(string(kind))
	}
	for _, kind := range []impl.EventKind{impl.CallbackReplaced, impl.RedirectReplaced} {
		m.notices.WithLabelValues(string(kind))
	}
	for _, notice := range server.Notices() {
		m.notices.WithLabelValues(notice)
	}
	for _, limit := range []string{limitIP, limitRecipient} {
		m.limited.WithLabelValues(limit)
	}
	for _, c := range []Call{GenerateLink, ProbeSupabase, Send, ProbeMailgun} {
		for _, outcome := range c.outcomes() {
			m.upstream.WithLabelValues(c.upstream, c.name, outcome)
		}
		m.upstreamDuration.WithLabelValues(c.upstream, c.name)
		for _, verdict := range health.Verdicts() {
			m.verdict.WithLabelValues(c.upstream, string(verdict)).Set(0)
		}
		m.verdict.WithLabelValues(c.upstream, string(health.Unknown)).Set(1)
	}
	for _, answer := range server.Failures() {
		m.requests.WithLabelValues(strconv.Itoa(answer.Status), answer.Code)
	}
	m.requests.WithLabelValues("200", "")
	m.limitedClients = m.limited.WithLabelValues(limitIP)
	isIn(m.limitsIn, inMemory)
	isIn(m.requestsIn, inMemory)
	return m
}

// ObservePending adds the gauges of accepted requests. pending returns their number, and when the oldest was
// accepted.
func (o *Observer) ObservePending(pending func() (number int, oldest time.Time)) {
	o.metrics.gauge("resetd_pending_requests", "Requests that are accepted and not delivered yet.", nil, func() float64 {
		number, _ := pending()
		return float64(number)
	})
	o.metrics.gauge("resetd_oldest_pending_request_age_seconds", "Time since the first request of the account that has waited longest for its delivery; 0 where none waits.", nil, func() float64 {
		if _, oldest := pending(); !oldest.IsZero() {
			return time.Since(oldest).Seconds()
		}
		return 0
	})
}

// ObserveProcess adds the gauges of the process: the version that runs, whether it is ready, and whether Redis is
// configured.
func (o *Observer) ObserveProcess(version, revision string, ready func() bool, redis bool) {
	o.metrics.gauge("resetd_build_info", "1; the labels say what is running.",
		prometheus.Labels{"version": version, "revision": revision, "goversion": runtime.Version()},
		func() float64 { return 1 })
	o.metrics.gauge("resetd_ready", "1 where /readyz says so, and 0 where a setting is missing or the server is stopping.", nil,
		func() float64 { return oneIf(ready()) })
	o.metrics.gauge("resetd_redis_configured", "1 where REDIS_URL is set: the limits should be counted there.", nil,
		func() float64 { return oneIf(redis) })
	o.metrics.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

func (m *metrics) gauge(name, help string, labels prometheus.Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

func oneIf(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// isIn sets the store that is in use to 1, and the other to 0.
func isIn(gauge *prometheus.GaugeVec, store string) {
	for _, name := range []string{inMemory, inRedis} {
		gauge.WithLabelValues(name).Set(0)
	}
	gauge.WithLabelValues(store).Set(1)
}

// asked counts an event that comes before the answer.
func (m *metrics) asked(kind impl.EventKind) {
	switch kind { //nolint:exhaustive // the others are ends of deliveries, and acceptances count with their ends
	case impl.CallbackReplaced:
		m.notices.WithLabelValues(string(kind)).Inc()
	case impl.Suppressed:
		m.mails.WithLabelValues(string(kind)).Inc()
		m.limited.WithLabelValues(limitRecipient).Inc()
	}
}

// delivered counts the end of a delivery.
func (m *metrics) delivered(event impl.Event) {
	m.mails.WithLabelValues(string(event.Kind)).Inc()
	m.deliveryDuration.WithLabelValues(string(event.Kind)).Observe(event.Took.Seconds())
	m.deliveryTries.Observe(float64(event.Tries))
	if event.Replaced {
		m.notices.WithLabelValues(string(impl.RedirectReplaced)).Inc()
	}
}

func (m *metrics) answered(a server.Answered, took time.Duration) {
	status := strconv.Itoa(a.Status)
	m.requests.WithLabelValues(status, a.Code).Inc()
	m.duration.WithLabelValues(status).Observe(took.Seconds())
	if a.Status == http.StatusTooManyRequests {
		m.limitedClients.Inc()
	}
}

// clientOf counts the source of the address of a request's client.
func (m *metrics) clientOf(from clientip.Source, a server.Answered) {
	if a.Status == http.StatusTooManyRequests {
		m.clients[from].limited.Inc()
		return
	}
	m.clients[from].served.Inc()
}
