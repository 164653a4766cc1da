package server

import (
	"crypto/sha256"
	_ "embed" // of the page
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// docsPage is the API reference. It has its style in it and no script, and needs no request but its own.
//
//go:generate go run ./docs ../../openapi.yaml docs.gen.html
//go:embed docs.gen.html
var docsPage string

// serveDocs adds the API reference page. It redirects to a relative address, because a proxy may have
// put anything before base.
func serveDocs(e *echo.Echo, base string) {
	_, rest, _ := strings.Cut(docsPage, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	digest := sha256.Sum256([]byte(style))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) + "'; img-src data:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

	methods := []string{http.MethodGet, http.MethodHead}
	e.Match(methods, base+"/docs", func(c echo.Context) error {
		header := c.Response().Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("Referrer-Policy", "no-referrer")
		header.Set(echo.HeaderContentLength, strconv.Itoa(len(docsPage)))
		return c.HTML(http.StatusOK, docsPage)
	})
	e.Match(methods, base+"/docs/", func(c echo.Context) error {
		return c.Redirect(http.StatusPermanentRedirect, "../docs")
	})
}
