package server

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"golang.org/x/net/http/httpguts"
)

// The reasons to refuse a preflight. The page learns only that its request failed, so the server's log names
// the reason, as a notice.
const (
	corsOrigin  = "cors_origin"  // CORS_ORIGINS lacks the page's origin
	corsMethod  = "cors_method"  // the operation is a POST
	corsHeaders = "cors_headers" // the names of headers are malformed, or longer than maxRequestHeaders
)

// Notices returns all names that Record.Notice may get.
func Notices() []string { return []string{corsOrigin, corsMethod, corsHeaders} }

// maxRequestHeaders bounds the list of headers in a preflight, in bytes. An app that two tools trace at once
// has about 200.
const maxRequestHeaders = 1 << 10

// cors lets pages of allowed origins call, and read the answers. The operation needs neither cookies nor an
// Origin, so CORS protects nothing here. An allowed page may send any headers, because tracing libraries add
// theirs to every request; no page may send cookies.
func cors(config Config) echo.MiddlewareFunc {
	settings := middleware.CORSConfig{
		// Without AllowHeaders, Echo allows the headers that the preflight asks for.
		AllowMethods:  []string{http.MethodPost},
		ExposeHeaders: []string{echo.HeaderRetryAfter, echo.HeaderXRequestID, "RateLimit", "RateLimit-Policy"},
		MaxAge:        600, // seconds, within what browsers cap it at
	}
	if config.AnyBrowser {
		settings.AllowOrigins = []string{"*"}
	} else {
		settings.AllowOriginFunc = func(origin string) (bool, error) { return config.AllowBrowser(origin), nil }
	}
	answer := middleware.CORSWithConfig(settings)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		answered := answer(next)
		return func(c echo.Context) error {
			if request := c.Request(); request.Method == http.MethodOptions {
				if notice := readPreflight(config, request.Header); notice != "" {
					recordOf(request.Context()).Notice(notice)
				}
			}
			return answered(c)
		}
	}
}

// readPreflight removes from a preflight the list of headers, if that must not be repeated in the answer. It
// returns the notice if the browser will not send its request, and "" if it will, or if this is no preflight.
func readPreflight(config Config, header http.Header) (notice string) {
	origin, method := header.Get(echo.HeaderOrigin), header.Get(echo.HeaderAccessControlRequestMethod)
	if origin == "" || method == "" {
		return ""
	}
	// A proxy may split a header into lines.
	names := strings.Join(header[echo.HeaderAccessControlRequestHeaders], ",")
	header.Del(echo.HeaderAccessControlRequestHeaders)
	allowed := areHeaderNames(names)
	if allowed && names != "" {
		header.Set(echo.HeaderAccessControlRequestHeaders, names)
	}
	switch {
	case !config.AnyBrowser && !config.AllowBrowser(origin):
		return corsOrigin
	case method != http.MethodPost && method != http.MethodGet && method != http.MethodHead: // browsers always allow the latter two
		return corsMethod
	case !allowed:
		return corsHeaders
	}
	return ""
}

// areHeaderNames reports whether a list is empty, or has names of headers separated by commas.
func areHeaderNames(list string) bool {
	if list == "" {
		return true
	}
	if len(list) > maxRequestHeaders {
		return false
	}
	for name := range strings.SplitSeq(list, ",") {
		if !httpguts.ValidHeaderFieldName(strings.Trim(name, " \t")) {
			return false
		}
	}
	return true
}
