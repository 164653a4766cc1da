package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/resetd/resetd/impl/health"
	"github.com/resetd/resetd/impl/origin"
	"github.com/resetd/resetd/test/resetdtest"
)

// TestBug: a bug is answered as openapi.yaml documents it, without detail. The test makes the allowed
// origins panic, which no setting can do.
func TestBug(t *testing.T) {
	settings, err := readSettings("serve", nil, []string{
		"SUPABASE_URL=http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY=key", "MAILGUN_API_BASE=http://127.0.0.1:9",
		"MAILGUN_API_KEY=key", "MAILGUN_DOMAIN=mg.example.com", "SITE_URL=" + site,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	log := &resetdtest.Log{}
	app, err := newApp(t.Context(), settings, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	app.service.Health = health.Fixed(nil) // there are no upstreams
	app.service.Pages = (*origin.Pages)(nil)
	server := httptest.NewServer(app.public)
	defer server.Close()
	client := &http.Client{Transport: resetdtest.CheckingTransport(t, http.DefaultTransport)}
	response, err := client.Post(server.URL+endpoint, "application/json", strings.NewReader(`{"email":"`+knownEmail+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := resetdtest.ReadAnswer(response)
	if err != nil || answer.Status != http.StatusInternalServerError || answer.Body.Code != "internal_error" {
		t.Errorf("%d %s, %v", answer.Status, answer.Raw, err)
	}
	example := resetdtest.Document().Paths.Find("/auth/send-password-reset").Post.Responses.Status(500).Value.Content["application/json"].Examples["internalError"]
	if words, _ := example.Value.Value.(map[string]any); words["error"] != answer.Body.Error {
		t.Errorf("the example of openapi.yaml says %q, and the server %q", words["error"], answer.Body.Error)
	}
	log.Await(t, `"msg":"panic"`)
	if strings.Contains(log.String(), knownEmail) {
		t.Error("the log has the address")
	}
}
