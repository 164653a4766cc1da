package repo

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/resetd/resetd"

// rooms says which packages of this module each room may import, and why no others.
var rooms = map[string]struct {
	may []string
	why string
}{
	"gen":                        {may: nil, why: "generated code depends on nothing written by hand"},
	"gen/client":                 {may: nil, why: "a client depends on nothing of the server"},
	"impl":                       {may: []string{"gen"}, why: "the operation decides the answer, and must not be able to ask about an account"},
	"impl/health":                {may: []string{"impl"}, why: "the verdicts that answer must not be able to ask about an account, or send it mail"},
	"impl/outbox":                {may: []string{"impl", "impl/redisclient"}, why: "what lets requests in does not know how they end"},
	"impl/delivery":              {may: []string{"impl"}, why: "a delivery knows its interfaces, and not who implements them"},
	"impl/setting":               {may: nil, why: "the form of a value does not depend on whose it is"},
	"impl/upstream":              {may: nil, why: "the bounds of a call do not know who is called"},
	"impl/supabase":              {may: []string{"impl", "impl/delivery", "impl/setting", "impl/upstream"}, why: "adapters know what they implement, and not each other"},
	"impl/mailgun":               {may: []string{"impl", "impl/delivery", "impl/setting", "impl/upstream"}, why: "adapters know what they implement, and not each other"},
	"impl/message":               {may: []string{"impl/setting"}, why: "a mail is written without knowing who sends it"},
	"impl/origin":                {may: nil, why: "the rule of where links may lead stands alone"},
	"impl/redisclient":           {may: []string{"impl/setting", "impl/upstream"}, why: "connections do not know what they carry"},
	"impl/redisclient/redistest": {may: nil, why: "servers for tests are no part of the program"},
	"impl/ratelimit":             {may: []string{"impl/redisclient", "impl/upstream"}, why: "limits do not know what they are for"},
	"impl/clientip":              {may: []string{"impl/setting"}, why: "whom to believe about a client stands alone"},
	"impl/server":                {may: []string{"gen", "impl", "impl/clientip", "impl/ratelimit", "impl/redisclient"}, why: "HTTP answers, and must not be able to ask about an account"},
	"impl/server/docs":           {may: nil, why: "the reference page is written from openapi.yaml alone"},
	"impl/observe":               {may: []string{"impl", "impl/clientip", "impl/health", "impl/server"}, why: "what the operator sees knows those who tell it, and nothing of upstreams"},
	"impl/webhook":               {may: []string{"impl"}, why: "reports end in the log and the counters"},
	"impl/check": {may: []string{
		"impl", "impl/delivery", "impl/mailgun", "impl/message", "impl/origin", "impl/outbox", "impl/ratelimit", "impl/redisclient", "impl/supabase", "impl/upstream",
	}, why: "asks each adapter whether it works, and so is the one room that knows them; it knows no flags and no environment"},
	"impl/devstack": {may: nil, why: "stand-ins share no code with what they are to test"},
	"cmd/resetd": {may: []string{
		"gen", "gen/client", "impl", "impl/check", "impl/clientip", "impl/delivery", "impl/devstack", "impl/health", "impl/mailgun", "impl/message", "impl/observe", "impl/origin", "impl/outbox",
		"impl/ratelimit", "impl/redisclient", "impl/server", "impl/setting", "impl/supabase", "impl/upstream", "impl/webhook",
	}, why: "wires all of them"},
	"test/bench":      {may: []string{"test/measure"}, why: "measures from outside"},
	"test/timing":     {may: []string{"test/measure"}, why: "measures from outside"},
	"test/measure":    {may: nil, why: "runs what is measured as processes, and shares no code with it"},
	"test/container":  {may: []string{"impl/devstack"}, why: "measures from outside, with the stand-ins"},
	"test/repo":       {may: nil, why: "reads files, and starts the program as it is"},
	"test/licences":   {may: nil, why: "reads the module cache, and none of the program"},
	"test/resetdtest": {may: []string{"gen", "gen/client", "impl/devstack"}, why: "a test has the program, its stand-ins and its document, and nothing of its code"},
	"test/e2e":        {may: nil, why: "tests from outside"},
	"test/contract":   {may: nil, why: "tests from outside"},
	"test/goclient":   {may: []string{"gen/client"}, why: "an app has the client, and nothing of the server"},
}

// forbidden names packages of others that only some rooms may import.
var forbidden = []struct {
	prefix string
	rooms  []string
	why    string
}{
	{prefix: "github.com/labstack/echo/", rooms: []string{"gen", "impl/server"}, why: "Echo has a next version; it is kept in one place"},
	{prefix: "github.com/getkin/kin-openapi/", rooms: []string{"gen", "impl/server", "impl/server/docs", "test/resetdtest"}, why: "validation is the server's"},
	{prefix: "github.com/mailgun/", rooms: []string{"impl/mailgun", "impl/webhook"}, why: "one room talks to Mailgun, and one listens to it"},
	{prefix: "github.com/redis/", rooms: []string{"impl/redisclient", "impl/redisclient/redistest", "impl/ratelimit", "impl/outbox", "test/bench"}, why: "two rooms keep something in Redis"},
	{prefix: "github.com/ulule/", rooms: []string{"impl/ratelimit"}, why: "one room counts"},
	{prefix: "github.com/prometheus/client_golang/", rooms: []string{"impl/observe", "impl/webhook", "cmd/resetd"}, why: "the operation knows no metrics"},
	{prefix: "go.opentelemetry.io/otel/", rooms: []string{"impl/observe", "cmd/resetd"}, why: "the operation knows no traces"},
	{prefix: "github.com/caarlos0/env/", rooms: []string{"cmd/resetd"}, why: "only the settings read the environment"},
	{
		prefix: "net/http", rooms: []string{"gen", "gen/client", "impl/check", "impl/server", "impl/server/docs", "impl/observe", "impl/webhook", "impl/upstream", "impl/supabase", "impl/mailgun", "impl/devstack", "cmd/resetd", "test/bench", "test/timing", "test/measure", "test/goclient", "test/container", "test/resetdtest"},
		why: "the operation knows no HTTP",
	},
}

// answeringRooms decide an answer. askingRooms can find out whether an account exists, or write or send its
// mail. No answer depends on an account, because no chain of imports leads from the first rooms to the others.
var (
	answeringRooms = []string{"impl", "impl/health", "impl/server"}
	askingRooms    = []string{"impl/delivery", "impl/supabase", "impl/mailgun", "impl/message", "impl/outbox"}
)

// TestAnswersCannotAsk is the first of the walls (docs/indistinguishable-answers.md).
func TestAnswersCannotAsk(t *testing.T) {
	for _, room := range answeringRooms {
		out, err := exec.Command("go", "list", "-deps", module+"/"+room).Output()
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		for line := range strings.Lines(string(out)) {
			imported, _ := strings.CutPrefix(strings.TrimSpace(line), module+"/")
			seen = seen || imported == "gen"
			if slices.Contains(askingRooms, imported) {
				t.Errorf("%s depends on %s, and could ask whether an account exists", room, imported)
			}
		}
		if !seen {
			t.Errorf("%s: its imports were not found", room)
		}
	}
}

// TestWalls: no room imports what it must not import.
func TestWalls(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		room := strings.TrimPrefix(fields[0], module+"/")
		rule, known := rooms[room]
		if !known {
			t.Errorf("%s is a room without a rule: add to rooms what it may import", room)
			continue
		}
		seen++
		for _, imported := range fields[1:] {
			if inner, own := strings.CutPrefix(imported, module+"/"); own && !slices.Contains(rule.may, inner) {
				t.Errorf("%s imports %s: %s", room, inner, rule.why)
			}
			for _, f := range forbidden {
				if (imported == path.Clean(f.prefix) || strings.HasPrefix(imported, f.prefix) && strings.HasSuffix(f.prefix, "/")) && !slices.Contains(f.rooms, room) {
					t.Errorf("%s imports %s: %s", room, imported, f.why)
				}
			}
		}
	}
	if seen < 11 {
		t.Errorf("only %d rooms were checked", seen)
	}
}

// TestEnvironment: only main reads the environment of the process, and passes it on.
func TestEnvironment(t *testing.T) {
	out, err := exec.Command("grep", "-rnE", `os\.(Getenv|LookupEnv|Environ|ExpandEnv)\(`, "--include=*.go", "--exclude=*_test.go", "--exclude-dir=redistest", "../../impl", "../../gen", "../../cmd").CombinedOutput()
	if err != nil && len(out) > 0 {
		t.Fatal(err, string(out))
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "../../cmd/resetd/main.go:") {
			t.Errorf("the environment is read outside of main: %s", line)
		}
	}
}
