package repo

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

var (
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	curlHeader = regexp.MustCompile(`-H '([^:']+): ([^']*)'`)
)

// TestDocsOfApps: a server accepts the settings in docs/apps.md, and answers its preflight as the page says.
func TestDocsOfApps(t *testing.T) {
	t.Parallel()
	settings, questions := 0, 0
	for _, block := range shellBlock.FindAllStringSubmatch(read(t, "docs/apps.md"), -1) {
		if strings.HasPrefix(block[1], "curl ") {
			questions++
			checkShownPreflight(t, block[1])
			continue
		}
		settings++
		config := resetdtest.Config{Settings: map[string]string{}}
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			config.Settings[name] = value
		}
		resetdtest.Start(t, config)
	}
	if settings < 4 || questions != 1 {
		t.Errorf("docs/apps.md has %d blocks of settings and %d questions", settings, questions)
	}
}

func checkShownPreflight(t *testing.T, command string) {
	t.Helper()
	f := resetdtest.Start(t, resetdtest.Config{Settings: map[string]string{"SITE_URL": "http://localhost:3000", "CALLBACK_ORIGINS": ""}})
	if !strings.Contains(command, "-X OPTIONS http://localhost:8080"+resetdtest.Endpoint+" ") {
		t.Errorf("the preflight of docs/apps.md asks elsewhere: %s", command)
	}
	request, err := http.NewRequest(http.MethodOptions, f.URL+resetdtest.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range curlHeader.FindAllStringSubmatch(command, -1) {
		request.Header.Set(header[1], header[2])
	}
	got := f.Do(request).Header
	if origin := got.Get("Access-Control-Allow-Origin"); origin == "" || origin != request.Header.Get("Origin") {
		t.Errorf("Access-Control-Allow-Origin is %q", origin)
	}
	if headers := got.Get("Access-Control-Allow-Headers"); headers != request.Header.Get("Access-Control-Request-Headers") {
		t.Errorf("Access-Control-Allow-Headers is %q", headers)
	}
}
