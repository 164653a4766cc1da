package server

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"golang.org/x/net/http/httpguts"
)

// Why a browser will not send the request that its preflight asks about. The page that wanted to is
// only told that it failed, so the server says it, as a notice.
const (
	corsOrigin  = "cors_origin"  // CORS_ORIGINS lacks the page's
	corsMethod  = "cors_method"  // the operation is a POST
	corsHeaders = "cors_headers" // their names are none, or have more than maxRequestHeaders
)

// Notices returns all that a Record may be told of by Notice.
func Notices() []string { return []string{corsOrigin, corsMethod, corsHeaders} }

// maxRequestHeaders bounds the names of headers that a browser asks for, in bytes. Those of an app
// that is traced by two tools at once have about 200.
const maxRequestHeaders = 1 << 10

// cors lets browsers on allowed origins call, and read the answers. The operation needs neither
// cookies nor an Origin, so there is nothing to protect from other callers here: an allowed page may
// send any headers (tracing libraries add theirs to every request), and no page may send cookies.
func cors(config Config) echo.MiddlewareFunc {
	settings := middleware.CORSConfig{
		// No AllowHeaders: those that the preflight asks for are said back.
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

// readPreflight leaves in header only names of headers that may be said back. It returns why a
// browser will take the answer for a no, and "" where it will not, or where no browser asks.
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

// areHeaderNames tells whether list is a comma-separated one of names, or empty.
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
