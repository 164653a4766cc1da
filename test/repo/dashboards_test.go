package repo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

// exported has all metrics of a server's /metrics, with their labels and values.
type exported map[string]map[string][]string

var (
	seriesPattern = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?$`)
	labelPattern  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"`)
)

// exports returns the metrics of a server with all settings, after some requests.
func exports(t *testing.T) exported {
	t.Helper()
	f := resetdtest.Start(t, resetdtest.Config{Accounts: []string{"known@example.com"}, Settings: map[string]string{"MAILGUN_WEBHOOK_SIGNING_KEY": "test-signing-key"}})
	f.Ask("known@example.com")
	f.Ask("stranger@example.org")
	f.Post(`{}`, nil)
	if response, err := f.Client.Get(f.URL + "/healthz"); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	// These come from Prometheus.
	all := exported{"up": {"job": nil, "instance": nil}, "ALERTS": {"alertname": nil, "alertstate": {"firing"}}}
	for series := range f.Scrape() {
		parts := seriesPattern.FindStringSubmatch(series)
		if parts == nil {
			t.Fatalf("no series: %q", series)
		}
		labels := all[parts[1]]
		if labels == nil {
			labels = map[string][]string{"job": nil, "instance": nil}
			all[parts[1]] = labels
		}
		for _, label := range labelPattern.FindAllStringSubmatch(parts[2], -1) {
			labels[label[1]] = append(labels[label[1]], label[2])
		}
	}
	return all
}

var (
	// Strings are removed first, so that no word in them counts as a name.
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	function = regexp.MustCompile(`\b[a-z_0-9]+\s*\(`)
	operator = regexp.MustCompile(`\b(and|or|unless|bool|offset|by|without|on|ignoring|sum|max|min|count|avg)\b`)
	duration = regexp.MustCompile(`\[[^\]]*\]`)
	name     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
)

// used has the metrics that a query names, and the labels that it groups by.
func used(query string) (metrics, groups []string) {
	for _, by := range grouping.FindAllStringSubmatch(query, -1) {
		groups = append(groups, name.FindAllString(by[2], -1)...)
	}
	rest := grouping.ReplaceAllString(query, " ")
	rest = selector.ReplaceAllString(rest, "$1 ")
	for _, noise := range []*regexp.Regexp{duration, regexp.MustCompile(`"[^"]*"`), regexp.MustCompile(`\$[a-z_]+`), function, operator} {
		rest = noise.ReplaceAllString(rest, " ")
	}
	return name.FindAllString(rest, -1), groups
}

// check reports names in a query that no server exports.
func (e exported) check(t *testing.T, where, query string) {
	t.Helper()
	metrics, groups := used(query)
	if len(metrics) == 0 && !strings.HasPrefix(query, "vector(") {
		t.Errorf("%s: names no metric: %s", where, query)
	}
	for _, metric := range metrics {
		if e[metric] == nil {
			t.Errorf("%s: no server exports %s", where, metric)
		}
	}
	for _, group := range groups {
		known := group == "job" || group == "instance"
		for _, metric := range metrics {
			_, has := e[metric][group]
			known = known || has
		}
		if !known {
			t.Errorf("%s: none of %v has a label %s", where, metrics, group)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			label, values := m[1], m[3]
			have, known := e[s[1]][label]
			switch {
			case !known:
				t.Errorf("%s: %s has no label %s", where, s[1], label)
				continue
			case have == nil, strings.Contains(values, "$"), strings.Contains(values, "."):
				continue // Prometheus adds it, Grafana's user chooses it, or it is a pattern or a bucket's bound
			}
			for value := range strings.SplitSeq(values, "|") {
				if !slices.Contains(have, value) {
					t.Errorf("%s: %s is never %q in %s", where, label, value, s[1])
				}
			}
		}
	}
}

const (
	manual     = "docs/operations.md"
	runbookURL = "https://github.com/resetd/resetd/blob/main/docs/operations.md#"
)

var (
	ruleStart   = regexp.MustCompile(`(?m)^      - alert: (\S+)\n`)
	inlineExpr  = regexp.MustCompile(`(?m)^        expr: ([^|\n].*)\n`)
	blockExpr   = regexp.MustCompile(`(?m)^        expr: \|\n((?:          .*\n|\n)+)`)
	runbookLine = regexp.MustCompile(`(?m)^          runbook_url: (\S+)\n`)
	headingLine = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// rules returns the text of each alert in alerts.yaml, by its name.
func rules(t *testing.T) map[string]string {
	t.Helper()
	text := read(t, "deploy/prometheus/alerts.yaml")
	alerts := map[string]string{}
	starts := ruleStart.FindAllStringSubmatchIndex(text, -1)
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		alerts[text[at[2]:at[3]]] = text[at[1]:end]
	}
	if have := strings.Count(text, "expr: "); len(alerts) < 15 || len(alerts) != have {
		t.Fatalf("%d alerts were read of %d rules", len(alerts), have)
	}
	return alerts
}

// exprOf returns the expression of a rule; empty if there is none.
func exprOf(t *testing.T, name, rule string) string {
	t.Helper()
	expr := inlineExpr.FindStringSubmatch(rule)
	if expr == nil {
		expr = blockExpr.FindStringSubmatch(rule)
	}
	if expr == nil {
		t.Errorf("%s: no expr was found", name)
		return ""
	}
	return expr[1]
}

// anchors returns the anchors that GitHub gives a page's headings.
func anchors(page string) (list []string) {
	for _, heading := range headingLine.FindAllStringSubmatch(page, -1) {
		list = append(list, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-"))
	}
	return list
}

// TestAlerts: the alerts query metrics, labels and values that a server really exports. Each alert has its
// section in the manual, and is tested to fire and to be silent.
func TestAlerts(t *testing.T) {
	t.Parallel()
	all, sections, tests := exports(t), anchors(read(t, manual)), read(t, "deploy/prometheus/alerts_test.yaml")
	alerts := rules(t)
	for alert, rule := range alerts {
		all.check(t, alert, exprOf(t, alert, rule))

		runbook := runbookLine.FindStringSubmatch(rule)
		anchor := strings.ToLower(alert)
		if runbook == nil || runbook[1] != runbookURL+anchor {
			t.Errorf("%s: runbook_url is %q, want %s", alert, runbook, runbookURL+anchor)
		}
		if !slices.Contains(sections, anchor) {
			t.Errorf("%s: docs/operations.md has no section with this name", alert)
		}
		for _, name := range []string{"fires", "is silent"} {
			if !strings.Contains(tests, "- name: "+alert+" "+name+" ") {
				t.Errorf("%s: no test in alerts_test.yaml says that it %s", alert, name)
			}
		}
		if !strings.Contains(tests, `alertname="`+alert+`"`) {
			t.Errorf("%s: no test in alerts_test.yaml expects it", alert)
		}
	}
	for _, section := range sections {
		if strings.HasPrefix(section, "resetd") && len(section) > len("resetd") && !strings.Contains(section, "-") {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(alerts)), func(alert string) bool { return strings.ToLower(alert) == section }) {
				t.Errorf("docs/operations.md has a section %s, which is no alert", section)
			}
		}
	}
}

// TestDashboard: the dashboard queries what a server really exports, and shows every metric of resetd. Every panel
// says what is normal, and All means the listed values of a variable.
func TestDashboard(t *testing.T) {
	t.Parallel()
	all := exports(t)
	var dashboard any
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/resetd.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := 0
	shown := map[string]bool{}
	var walk func(title string, node any)
	walk = func(title string, node any) {
		switch node := node.(type) {
		case []any:
			for _, element := range node {
				walk(title, element)
			}
		case map[string]any:
			if of, ok := node["title"].(string); ok {
				title = of
			}
			if _, panel := node["gridPos"]; panel && node["type"] != "row" {
				if description, _ := node["description"].(string); !strings.Contains(strings.ToLower(description), "normal") {
					t.Errorf("the panel %q does not say what is normal", title)
				}
			}
			// With an allValue, All would mean every process that Prometheus knows, and not only the listed ones.
			if all, _ := node["allValue"].(string); all != "" {
				t.Errorf("the variable %v has an allValue: %s", node["name"], all)
			}
			for key, value := range node {
				switch query, isText := value.(string); {
				case isText && key == "expr":
					queries++
					all.check(t, title, query)
					metrics, _ := used(query)
					for _, metric := range metrics {
						shown[metric] = true
					}
				case isText && key == "query" && strings.HasPrefix(query, "label_values("):
					of, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(query, "label_values("), ")"), ", ")
					all.check(t, "a variable", "sum by ("+label+") ("+of+")")
				default:
					walk(title, value)
				}
			}
		}
	}
	walk("", dashboard)
	if queries < 20 {
		t.Errorf("only %d queries were found", queries)
	}
	for metric := range all {
		base := strings.TrimSuffix(strings.TrimSuffix(metric, "_sum"), "_count")
		if strings.HasPrefix(metric, "resetd_") && !shown[metric] && !shown[base+"_bucket"] {
			t.Errorf("the dashboard does not show %s", metric)
		}
	}
}

// TestMetricsAreListed: the manual lists exactly the metrics that a server exports.
func TestMetricsAreListed(t *testing.T) {
	t.Parallel()
	page := read(t, manual)
	listed := map[string]bool{}
	for _, line := range regexp.MustCompile("(?m)^\\| `(resetd_[a-z_]+)").FindAllStringSubmatch(page, -1) {
		listed[line[1]] = true
	}
	families := map[string]bool{}
	for metric := range exports(t) {
		if strings.HasPrefix(metric, "resetd_") {
			families[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(metric, "")] = true
		}
	}
	for family := range families {
		if !listed[family] {
			t.Errorf("docs/operations.md does not list %s", family)
		}
	}
	for metric := range listed {
		if !families[metric] {
			t.Errorf("docs/operations.md lists %s, which no server exports", metric)
		}
	}
}

var linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: every link of the manuals within this repository has a target, headings included.
func TestLinks(t *testing.T) {
	t.Parallel()
	const root = "../.."
	for _, page := range []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md", "docs/operations.md", "docs/platforms.md"} {
		links := linkPattern.FindAllStringSubmatch(read(t, page), -1)
		if len(links) == 0 {
			t.Errorf("%s links to nothing", page)
		}
		for _, link := range links {
			if strings.Contains(link[1], "://") {
				continue
			}
			path, anchor, hasAnchor := strings.Cut(link[1], "#")
			target := filepath.Join(root, page)
			if path != "" {
				target = filepath.Join(filepath.Dir(target), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, link[1])
				continue
			}
			if hasAnchor && !slices.Contains(anchors(read(t, strings.TrimPrefix(target, root+"/"))), anchor) {
				t.Errorf("%s links to %s, where this heading does not exist", page, link[1])
			}
		}
	}
}

// TestFingerprintAsDocumented: the log has the fingerprint that the manual's command, in another language,
// derives from a key and an address.
func TestFingerprintAsDocumented(t *testing.T) {
	t.Parallel()
	page := read(t, manual)
	mac := func(key []byte, text string) []byte {
		hash := hmac.New(sha256.New, key)
		hash.Write([]byte(text))
		return hash.Sum(nil)
	}
	const purpose = "resetd: fingerprints in the log"
	if !strings.Contains(page, `key = hmac.digest(secret, b"`+purpose+`", "sha256")`) {
		t.Error("docs/operations.md does not derive the key as expected")
	}
	const secret, address = "test-service-role-key", "Hello@example.com"
	documented := hex.EncodeToString(mac(mac([]byte(secret), purpose), strings.ToLower(address)))[:16]

	f := resetdtest.Start(t, resetdtest.Config{})
	f.Ask(address)
	if logged := f.Log.Await(t, `"msg":"request".*"account":"([^"]+)"`); logged != documented {
		t.Errorf("the log has the account %s, but the manual's command prints %s", logged, documented)
	}
}
