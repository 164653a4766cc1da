package e2e

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/resetd/resetd/test/resetdtest"
)

// collecting is an OpenTelemetry collector.
type collecting struct {
	*httptest.Server
	mu       sync.Mutex
	raw      bytes.Buffer // all that it has received
	spans    []*otlp.Span
	resource []*common.KeyValue
}

// sent returns all that it has received.
func (c *collecting) sent() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// received returns the spans that it has received.
func (c *collecting) received() []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

func newCollector(t *testing.T) *collecting {
	t.Helper()
	c := &collecting{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var sent collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &sent) != nil {
			t.Errorf("%s %s with %d bytes (%v)", r.Method, r.URL, len(body), err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, resource := range sent.ResourceSpans {
			c.resource = resource.Resource.Attributes
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// traced starts resetd with a collector, which has all spans after f.Stop has returned.
func traced(t *testing.T, config resetdtest.Config) (*fixture, *collecting) {
	t.Helper()
	c := newCollector(t)
	config.Settings = with(config.Settings, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL})
	return startWith(t, config, c), c
}

// startWith starts resetd, and searches the collector for private texts after it has ended.
func startWith(t *testing.T, config resetdtest.Config, c *collecting) (f *fixture) {
	t.Helper()
	t.Cleanup(func() { f.SearchAlso("the collector", c.sent()) })
	f = start(t, config)
	return f
}

// trace returns the spans of the request with this id by name, in the order in which they were sent.
func (c *collecting) trace(t *testing.T, id string) map[string][]*otlp.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var root *otlp.Span
	for _, span := range c.spans {
		if len(span.ParentSpanId) == 0 && attributeOf(span.Attributes, "resetd.request_id").GetStringValue() == id {
			root = span
		}
	}
	if root == nil {
		t.Fatalf("request %s has no span among %d", id, len(c.spans))
	}
	byName := map[string][]*otlp.Span{}
	for _, span := range c.spans {
		if bytes.Equal(span.TraceId, root.TraceId) {
			byName[span.Name] = append(byName[span.Name], span)
		}
	}
	return byName
}

func attributeOf(attributes []*common.KeyValue, key string) *common.AnyValue {
	for _, one := range attributes {
		if one.Key == key {
			return one.Value
		}
	}
	return nil
}

const (
	operationSpan = "POST " + endpoint
	deliverySpan  = "delivery"
	linkSpan      = "supabase generate_link"
	sendSpan      = "mailgun send"
)

// TestTraces: each request has one span. Its trace has a span for each attempt of its delivery, with a span below it
// for each call of an upstream. Probes make no spans. Only Supabase Auth gets the trace context of a call.
func TestTraces(t *testing.T) {
	f, c := traced(t, resetdtest.Config{})
	ids := map[string]string{} // ids of the requests, by address
	for _, email := range []string{knownEmail, unknownEmail} {
		answer := f.Ask(email)
		if answer.Status != http.StatusOK {
			t.Fatalf("%d: %s", answer.Status, answer.Raw)
		}
		ids[email] = answer.Header.Get("X-Request-Id")
	}
	refused := f.Post(`{}`, nil).Header.Get("X-Request-Id")
	f.Settle()
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}

	var sent []string // trace contexts of deliveries that Supabase Auth got
	for _, call := range f.Stack.Calls() {
		if call.Service == "supabase" && !resetdtest.IsProbe(call) {
			sent = append(sent, call.Header.Get("Traceparent"))
			continue
		}
		for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
			if value := call.Header.Get(name); value != "" {
				t.Errorf("%s got %s: %s", call.Service, name, value)
			}
		}
	}
	for email, id := range ids {
		spans := c.trace(t, id)
		calls := map[string]int{knownEmail: 2, unknownEmail: 1}[email]
		if len(spans) != 2+calls || len(spans[operationSpan]) != 1 || len(spans[deliverySpan]) != 1 || len(spans[linkSpan]) != 1 || len(spans[sendSpan]) != calls-1 {
			t.Fatalf("the spans of a request about %s: %v", email, spans)
		}
		root, attempt := spans[operationSpan][0], spans[deliverySpan][0]
		if len(root.ParentSpanId) != 0 || root.Kind != otlp.Span_SPAN_KIND_SERVER {
			t.Errorf("the request's span is not a server's root: %v", root)
		}
		if got := attributeOf(root.Attributes, "http.response.status_code").GetIntValue(); got != http.StatusOK {
			t.Errorf("http.response.status_code is %d", got)
		}
		if got := attributeOf(root.Attributes, "resetd.outcome").GetStringValue(); got != "accepted" {
			t.Errorf("resetd.outcome is %q", got)
		}
		if !bytes.Equal(attempt.ParentSpanId, root.SpanId) || attributeOf(attempt.Attributes, "resetd.request_id").GetStringValue() != id {
			t.Errorf("the delivery is not that of its request: %v", attempt)
		}
		for _, call := range append(spans[linkSpan], spans[sendSpan]...) {
			if !bytes.Equal(call.ParentSpanId, attempt.SpanId) || call.Kind != otlp.Span_SPAN_KIND_CLIENT {
				t.Errorf("%s is no call below its delivery: %v", call.Name, call)
			}
		}
		link := spans[linkSpan][0]
		want := "00-" + hex.EncodeToString(link.TraceId) + "-" + hex.EncodeToString(link.SpanId) + "-01"
		if !slices.Contains(sent, want) {
			t.Errorf("Supabase was called with traceparent %q, want %s among them", sent, want)
		}
		f.Log.Await(t, `"trace_id":"`+hex.EncodeToString(root.TraceId)+`"`)
	}
	if len(c.received()) != 4+3+1 {
		t.Errorf("%d spans for two deliveries and a refusal, want 8: %v", len(c.received()), c.received())
	}
	if spans := c.trace(t, refused); len(spans) != 1 || attributeOf(spans[operationSpan][0].Attributes, "error.type").GetStringValue() != "invalid_request" {
		t.Errorf("the spans of an invalid request: %v", spans)
	}
	c.mu.Lock()
	resource := c.resource
	c.mu.Unlock()
	if name := attributeOf(resource, "service.name").GetStringValue(); name != "resetd" {
		t.Errorf("service.name is %q", name)
	}
	if got := attributeOf(resource, "service.version").GetStringValue(); got != f.version() {
		t.Errorf("service.version is %q", got)
	}
}

// TestTraceOfRetries: each attempt of a delivery has its own span in the trace of the request.
func TestTraceOfRetries(t *testing.T) {
	t.Parallel()
	f, c := traced(t, resetdtest.Config{Build: resetdtest.BuildShipped, Mailgun: toDeliveries(resetdtest.Saying(http.StatusBadRequest, "{}")(nil))})
	id := f.Ask(knownEmail).Header.Get("X-Request-Id")
	f.Settle()
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	spans := c.trace(t, id)
	if len(spans[deliverySpan]) != 3 || len(spans[linkSpan]) != 1 || len(spans[sendSpan]) != 3 {
		t.Fatalf("the spans of three attempts: %v", spans)
	}
	parents := map[string]bool{}
	for _, call := range spans[sendSpan] {
		parents[string(call.ParentSpanId)] = true
	}
	for _, attempt := range spans[deliverySpan] {
		if !bytes.Equal(attempt.ParentSpanId, spans[operationSpan][0].SpanId) || !parents[string(attempt.SpanId)] {
			t.Errorf("no attempt below the request, with a call: %v", attempt)
		}
	}
}

// TestTraceOfCaller: a caller's traceparent becomes a link and no parent. It decides neither what is sampled nor
// where spans go. Nothing that a caller sent reaches an upstream.
func TestTraceOfCaller(t *testing.T) {
	f, c := traced(t, resetdtest.Config{})
	const callers = "0af7651916cd43dd8448eb211c80319c"
	id := f.Post(`{"email":"`+knownEmail+`"}`, map[string]string{
		"Traceparent": "00-" + callers + "-b7ad6b7169203331-00", // not sampled
		"Tracestate":  "vendor=of-the-caller", "Baggage": "key=of-the-caller",
	}).Header.Get("X-Request-Id")
	f.Settle()
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	spans := c.trace(t, id)
	if len(spans[deliverySpan]) != 1 || len(spans[linkSpan]) != 1 || len(spans[sendSpan]) != 1 {
		t.Errorf("what the caller did not sample is missing: %v", spans)
	}
	root := spans[operationSpan][0]
	if hex.EncodeToString(root.TraceId) == callers || len(root.ParentSpanId) != 0 {
		t.Errorf("the caller's span is the parent: %v", root)
	}
	if len(root.Links) != 1 || hex.EncodeToString(root.Links[0].TraceId) != callers {
		t.Errorf("the links are %v", root.Links)
	}
	if strings.Contains(c.sent(), "of-the-caller") {
		t.Error("the collector got the caller's tracestate or baggage")
	}
	for _, call := range f.Stack.Calls() {
		for name, values := range call.Header {
			if text := strings.Join(values, " "); strings.Contains(text, "of-the-caller") || strings.Contains(text, callers) {
				t.Errorf("%s was sent %s: %s", call.Service, name, text)
			}
		}
	}
}

// TestTracesTellNothing: whatever fails, the collector gets no address, token, link, key or text of an upstream
// (SECURITY.md, promise 7).
func TestTracesTellNothing(t *testing.T) {
	t.Parallel()
	const gossip = "gossip of the upstream"
	broken := func(status int) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, `{"error_code":"`+gossip+`","message":"`+knownEmail+gossip+`"}`, status)
			})
		}
	}
	// Only calls of deliveries have spans, so only faults of deliveries are tested.
	short := map[string]string{"DELIVERY_TIMEOUT": "3s"}
	for name, s := range map[string]resetdtest.Config{
		"all well":                  {},
		"Supabase fails":            {Supabase: toDeliveries(broken(500)(nil)), Settings: short},
		"the key is refused":        {Supabase: toDeliveries(broken(401)(nil)), Settings: short},
		"Mailgun fails":             {Mailgun: toDeliveries(broken(500)(nil)), Settings: short},
		"Mailgun refuses":           {Mailgun: toDeliveries(broken(400)(nil)), Settings: short},
		"Supabase fails everybody":  {Supabase: broken(500)},
		"Mailgun refuses everybody": {Mailgun: broken(401)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Build = resetdtest.BuildShipped
			f, c := traced(t, s)
			for _, email := range []string{knownEmail, unknownEmail} {
				f.Post(`{"email":"`+email+`","callback_origin":"https://evil.example"}`, map[string]string{"Accept-Language": "de", "X-Forwarded-For": "192.0.2.7"})
			}
			f.Post(`{"email":"not an address"}`, nil)
			f.Settle()
			if err := f.Stop(); err != nil {
				t.Fatal(err)
			}
			sent := c.sent()
			accepted := !strings.HasSuffix(name, "everybody")
			if !strings.Contains(sent, operationSpan) || strings.Contains(sent, linkSpan) != accepted {
				t.Fatalf("%d bytes were sent, without the spans", len(sent))
			}
			for _, secret := range []string{"@example", knownEmail, "stranger", "evil.example", "not an address", "192.0.2.7", "127.0.0.1", "test-service-role-key", "test-mailgun-key", "token", gossip} {
				if strings.Contains(sent, secret) {
					t.Errorf("the collector got %q", secret)
				}
			}
			for _, mail := range append(f.Stack.Mails(), f.Stack.TestMessages()...) {
				for _, token := range regexp.MustCompile(`[0-9a-f]{56}`).FindAllString(mail.Text, -1) {
					if strings.Contains(sent, token) {
						t.Error("the collector got a token")
					}
				}
			}
			failed := map[string]bool{} // by the span's name; only if all of them failed
			for _, span := range c.received() {
				once, seen := failed[span.Name]
				failed[span.Name] = (once || !seen) && span.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR
			}
			upstream, _, _ := strings.Cut(name, " ")
			for span, want := range map[string]bool{
				linkSpan: upstream == "Supabase" || name == "the key is refused", sendSpan: upstream == "Mailgun",
			} {
				if got, made := failed[span]; made && got != want {
					t.Errorf("%s has failed: %v, want %v", span, got, want)
				}
			}
			for _, span := range c.received() {
				bad := attributeOf(span.Attributes, "http.response.status_code").GetIntValue() >= 500
				if span.Name == operationSpan && bad != (span.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR) {
					t.Errorf("the span of a request: %v", span)
				}
			}
		})
	}
}

// TestTracingOff: unless the standard variables set an exporter, nothing is exported, and no trace context goes to
// an upstream, also not the caller's.
func TestTracingOff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		env       map[string]string
		collector bool // an endpoint is set nevertheless
	}{
		"by default":               {},
		"a service name alone":     {env: map[string]string{"OTEL_SERVICE_NAME": "resetd"}},
		"OTEL_TRACES_EXPORTER":     {env: map[string]string{"OTEL_TRACES_EXPORTER": "none"}, collector: true},
		"OTEL_SDK_DISABLED":        {env: map[string]string{"OTEL_SDK_DISABLED": "TRUE"}, collector: true},
		"OTEL_METRICS_EXPORTER":    {env: map[string]string{"OTEL_METRICS_EXPORTER": "otlp"}},
		"OTEL_EXPORTER_OTLP_LOGS_": {env: map[string]string{"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, s := &collecting{}, resetdtest.Config{Build: resetdtest.BuildShipped, Settings: test.env}
			var f *fixture
			if test.collector {
				f, c = traced(t, s)
			} else {
				f = start(t, s)
			}
			f.Post(`{"email":"`+knownEmail+`"}`, map[string]string{"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
			f.Settle()
			if err := f.Stop(); err != nil {
				t.Fatal(err)
			}
			if calls := len(f.Calls()); calls != 2 {
				t.Errorf("%d calls of a delivery, want 2", calls)
			}
			if c.sent() != "" {
				t.Error("the collector got something")
			}
			for _, call := range f.Stack.Calls() {
				if value := call.Header.Get("Traceparent"); value != "" {
					t.Errorf("%s got traceparent %s", call.Service, value)
				}
			}
			if strings.Contains(f.Log.String(), "trace_id") {
				t.Error("the log has a trace_id")
			}
		})
	}
}

// TestCollectorAway: requests are answered as usual, and the loss is logged without the collector's address and
// headers.
func TestCollectorAway(t *testing.T) {
	f, c := traced(t, resetdtest.Config{Settings: map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "200"}})
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=collector-key")
	c.Close()
	if answer := f.Ask(knownEmail); answer.Status != http.StatusOK {
		t.Fatalf("%d: %s", answer.Status, answer.Raw)
	}
	f.Settle()
	if mails := f.Stack.Mails(); len(mails) != 1 {
		t.Errorf("%d mails", len(mails))
	}
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
	f.Log.Await(t, `"msg":"spans were lost"`)
	for _, secret := range []string{c.URL, strings.TrimPrefix(c.URL, "http://"), "collector-key", knownEmail} {
		if strings.Contains(f.Log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}
