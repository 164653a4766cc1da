// Package server serves the operation over HTTP. It owns the routes, the order of judgement, validation against
// openapi.yaml, and the table from errors to answers.
//
// It must never decide what happens to a valid request (package impl does), import what can look up an account,
// or answer anything that depends on whether one exists.
package server

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/gen"
	"github.com/resetd/resetd/impl/clientip"
	"github.com/resetd/resetd/impl/ratelimit"
)

// The paths of the operation and the webhooks. basePath is the first server of openapi.yaml.
const (
	basePath      = "/api"
	operationPath = "/auth/send-password-reset"
	webhookRoute  = "/webhooks/mailgun"
)

// The routes that a Recorder treats differently from others.
const (
	OperationRoute = basePath + operationPath
	HealthRoute    = "/healthz"
	ReadyRoute     = "/readyz"
)

// Config has the parts and the settings of a server.
type Config struct {
	Operation gen.StrictServerInterface
	Recorder  Recorder
	Logger    *slog.Logger

	// Limit counts the requests of each client, valid or not.
	Limit *ratelimit.Limiter
	// ClientIP finds the client of a request.
	ClientIP clientip.Rule
	// Fingerprint returns the keyed hash under which the operator sees a client.
	Fingerprint func(client string) string

	Readiness *Readiness

	// AllowCallback, if set, rejects requests whose callback origin is not allowed.
	AllowCallback func(origin string) bool
	// AllowBrowser reports whether pages of an origin may call. AnyBrowser allows all.
	AllowBrowser func(origin string) bool
	AnyBrowser   bool
	// Webhooks, if set, answers Mailgun's webhooks. It returns the code of an error that it has answered, or
	// an unforeseen error that it has not answered.
	Webhooks func(http.ResponseWriter, *http.Request) (code string, err error)
	// Docs serves the API reference page.
	Docs bool
}

// New assembles the public handler.
func New(config Config) (http.Handler, error) {
	document, err := gen.GetSpec() // 0.8 ms and 325 KB: once
	if err != nil {
		return nil, fmt.Errorf("reading the embedded openapi.yaml: %w", err)
	}
	documentJSON, err := gen.GetSpecJSON()
	if err != nil {
		return nil, fmt.Errorf("reading the embedded openapi.yaml: %w", err)
	}
	validator, err := newValidator(document, operationPath, http.MethodPost, config.AllowCallback)
	if err != nil {
		return nil, err
	}

	e := echo.New()
	e.Logger.SetOutput(io.Discard) // the Recorder logs
	// Echo would compose middlewares again for each request. Here, and in composed, that is done once.
	all := recorded(config.Recorder, cors(config)(func(c echo.Context) error { return c.Handler()(c) }))
	e.Use(func(echo.HandlerFunc) echo.HandlerFunc { return all })
	e.Match([]string{http.MethodGet, http.MethodHead}, HealthRoute, func(c echo.Context) error {
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, []byte(`{"status":"ok"}`+"\n"))
	})
	e.Match([]string{http.MethodGet, http.MethodHead}, ReadyRoute, func(c echo.Context) error {
		if !config.Readiness.Ready() { // the reason is for the operator's listener
			return c.Blob(http.StatusServiceUnavailable, echo.MIMEApplicationJSON, []byte(`{"status":"not ready"}`+"\n"))
		}
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, []byte(`{"status":"ok"}`+"\n"))
	})
	e.Match([]string{http.MethodGet, http.MethodHead}, basePath+"/openapi.json", func(c echo.Context) error {
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, documentJSON)
	})
	if config.Docs {
		serveDocs(e, basePath)
	}

	if config.Webhooks != nil {
		e.POST(webhookRoute, func(c echo.Context) error {
			code, err := config.Webhooks(c.Response(), c.Request())
			if code != "" {
				return codedError(code)
			}
			return err
		})
	}

	strict := gen.NewStrictHandler(config.Operation, nil)
	gen.RegisterHandlersWithOptions(composed{e}, strict, gen.RegisterHandlersOptions{
		BaseURL: basePath,
		// In the order of judgement. The key is the operationId; the generated code ignores a wrong one
		// silently, and the tests of each of the two would notice.
		OperationMiddlewares: map[string][]echo.MiddlewareFunc{
			"sendPasswordReset": {limitClients(config), validator.middleware},
		},
	})
	return e, nil
}

// composed is a router that composes a route and its middlewares once.
type composed struct{ *echo.Echo }

// POST implements gen.EchoRouter.
func (r composed) POST(path string, handler echo.HandlerFunc, middlewares ...echo.MiddlewareFunc) *echo.Route {
	for _, middleware := range slices.Backward(middlewares) {
		handler = middleware(handler)
	}
	return r.Echo.POST(path, handler)
}

// limitClients counts every request of a client before anything of it is read.
func limitClients(config Config) echo.MiddlewareFunc {
	var warned [clientip.Sources]sync.Once
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			request := c.Request()
			client, source := config.ClientIP.Client(request.RemoteAddr, request.Header)
			if source >= clientip.NotTrusted {
				warned[source].Do(func() { warnOfProxy(config.Logger, config.ClientIP.Explain(request.RemoteAddr, request.Header)) })
			}
			recordOf(request.Context()).SetClient(source, func() string { return config.Fingerprint(client) })
			decision := config.Limit.Take(request.Context(), client)
			policy, limit := decision.Fields()
			c.Response().Header()["RateLimit-Policy"] = []string{policy}
			c.Response().Header()["RateLimit"] = []string{limit}
			if !decision.Allowed {
				// net/http reads the rest of the body before it sends the answer. A client that does not
				// send its body waits a second for the answer, and not for the server's ReadTimeout.
				_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(time.Second))
				return rateLimited(decision.RetryAfter)
			}
			return next(c)
		}
	}
}

// warnOfProxy logs that a request's client may be a proxy with many clients behind it.
func warnOfProxy(logger *slog.Logger, e clientip.Explanation) {
	logger.Warn("clients may not be told apart", "client_from", e.Source.String(), "header", e.Header, "reason", e.Why, "fix", e.Fix)
}
