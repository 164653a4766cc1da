package repo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"go.yaml.in/yaml/v3"

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

// grafana replaces Grafana's variables outside of strings, so that a query can be parsed.
var grafana = strings.NewReplacer("$__rate_interval", "5m", "$price", "1")

// check reports names in a query that no server exports. It returns the metrics that the query names.
func (e exported) check(t *testing.T, where, query string) (metrics []string) {
	t.Helper()
	parsed, err := metricsql.Parse(grafana.Replace(query))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	var groups []string
	metricsql.VisitAll(parsed, func(part metricsql.Expr) {
		switch part := part.(type) {
		case *metricsql.AggrFuncExpr:
			groups = append(groups, part.Modifier.Args...)
		case *metricsql.BinaryOpExpr:
			groups = slices.Concat(groups, part.GroupModifier.Args, part.JoinModifier.Args)
		case *metricsql.MetricExpr:
			for _, filters := range part.LabelFilterss {
				metrics = append(metrics, filters[0].Value) // the name comes first
				e.checkFilters(t, where, filters[0].Value, filters[1:])
			}
		}
	})
	if len(metrics) == 0 && !strings.HasPrefix(query, "vector(") {
		t.Errorf("%s: names no metric: %s", where, query)
	}
	for _, group := range groups {
		if !slices.ContainsFunc(metrics, func(metric string) bool { _, has := e[metric][group]; return has }) {
			t.Errorf("%s: none of %v has a label %s", where, metrics, group)
		}
	}
	return metrics
}

func (e exported) checkFilters(t *testing.T, where, metric string, filters []metricsql.LabelFilter) {
	t.Helper()
	if e[metric] == nil {
		t.Errorf("%s: no server exports %s", where, metric)
	}
	for _, filter := range filters {
		have, known := e[metric][filter.Label]
		if !known {
			t.Errorf("%s: %s has no label %s", where, metric, filter.Label)
		}
		if have == nil || strings.ContainsAny(filter.Value, "$.") {
			continue // Prometheus adds it, Grafana's user chooses it, or it is a pattern or a bucket's bound
		}
		for value := range strings.SplitSeq(filter.Value, "|") {
			if !slices.Contains(have, value) {
				t.Errorf("%s: %s is never %q in %s", where, filter.Label, value, metric)
			}
		}
	}
}

const (
	manual     = "docs/operations.md"
	runbookURL = "https://github.com/resetd/resetd/blob/main/docs/operations.md#"
)

var (
	headingLine = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// alert is a rule of alerts.yaml.
type alert struct {
	Alert, Expr string
	Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) < 15 {
		t.Fatalf("only %d alerts were read", len(all))
	}
	return all
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
	names := map[string]bool{}
	for _, rule := range alerts(t) {
		all.check(t, rule.Alert, rule.Expr)
		anchor := strings.ToLower(rule.Alert)
		names[anchor] = true
		if runbook := rule.Annotations["runbook_url"]; runbook != runbookURL+anchor {
			t.Errorf("%s: runbook_url is %q, want %s", rule.Alert, runbook, runbookURL+anchor)
		}
		if !slices.Contains(sections, anchor) {
			t.Errorf("%s: docs/operations.md has no section with this name", rule.Alert)
		}
		for _, name := range []string{"fires", "is silent"} {
			if !strings.Contains(tests, "- name: "+rule.Alert+" "+name+" ") {
				t.Errorf("%s: no test in alerts_test.yaml says that it %s", rule.Alert, name)
			}
		}
		if !strings.Contains(tests, `alertname="`+rule.Alert+`"`) {
			t.Errorf("%s: no test in alerts_test.yaml expects it", rule.Alert)
		}
	}
	for _, section := range sections {
		if strings.HasPrefix(section, "resetd") && len(section) > len("resetd") && !strings.Contains(section, "-") && !names[section] {
			t.Errorf("docs/operations.md has a section %s, which is no alert", section)
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
					for _, metric := range all.check(t, title, query) {
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
