package repo

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	shutdownDefault = regexp.MustCompile("(?m)^\\| `(SHUTDOWN_[A-Z]+)` \\| `([^`]+)` \\|")
	shutdownSetting = regexp.MustCompile(`(SHUTDOWN_[A-Z]+)=(\S+?)[\x60\s]`)
	seconds         = regexp.MustCompile(`\b([0-9]+)(?: s\b|\x60)`)
)

// TestStopping: on each platform of the page, with the settings that it names, a stop ends before the platform
// kills the process.
func TestStopping(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{}
	for _, found := range shutdownDefault.FindAllStringSubmatch(read(t, "README.md"), -1) {
		defaults[found[1]] = found[2]
	}
	if len(defaults) != 2 {
		t.Fatalf("README.md has the defaults %v", defaults)
	}
	_, table, _ := strings.Cut(read(t, "docs/platforms.md"), "| platform | waits | settings that fit |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := 0
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		for i, settings := range strings.Split(cells[3], ", or ") {
			waits := seconds.FindStringSubmatch(cells[2])
			if named := seconds.FindStringSubmatch(shutdownSetting.ReplaceAllString(settings, "")); i > 0 || waits == nil {
				waits = named // the platform can be told how long to wait
			}
			if waits == nil {
				t.Errorf("%s: how long does it wait for %s?", cells[1], settings)
				continue
			}
			limit, err := strconv.Atoi(waits[1])
			if err != nil {
				t.Fatal(err)
			}
			var takes time.Duration
			values := map[string]string{"SHUTDOWN_DELAY": defaults["SHUTDOWN_DELAY"], "SHUTDOWN_TIMEOUT": defaults["SHUTDOWN_TIMEOUT"]}
			for _, found := range shutdownSetting.FindAllStringSubmatch(settings, -1) {
				values[found[1]] = found[2]
			}
			for name, value := range values {
				d, err := time.ParseDuration(value)
				if err != nil {
					t.Fatalf("%s: %s: %v", cells[1], name, err)
				}
				takes += d
			}
			if takes >= time.Duration(limit)*time.Second {
				t.Errorf("%s waits %d s, and a stop with %s may take %v", cells[1], limit, settings, takes)
			}
			rows++
		}
	}
	if rows < 8 {
		t.Errorf("%d rows", rows)
	}
}
