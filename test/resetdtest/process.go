package resetdtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Main runs the tests of a package, and removes the binaries that they have built.
func Main(m *testing.M) int {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		parallel := "16" // these tests wait more than they work
		if RaceEnabled {
			parallel = "6"
		}
		_ = flag.Set("test.parallel", parallel)
	}
	defer func() {
		for _, dir := range builtIn {
			_ = os.RemoveAll(dir)
		}
	}()
	return m.Run()
}

// Build builds resetd, once for all tests, with the race detector if the test has it.
func Build(tb testing.TB) (path string) {
	if RaceEnabled {
		return built(tb, raceBinary)
	}
	return BuildShipped(tb)
}

// BuildShipped builds resetd as `make build` does.
func BuildShipped(tb testing.TB) (path string) { return built(tb, shippedBinary) }

// BuildPatient builds resetd as it is shipped, but with [redisclient.LongPatience], so that a busy machine does not make
// it lose a working Redis.
func BuildPatient(tb testing.TB) (path string) { return built(tb, patientBinary) }

var (
	building      sync.Mutex
	builtIn       []string
	raceBinary    = sync.OnceValues(func() (string, error) { return build("1", "-race") })
	shippedBinary = sync.OnceValues(func() (string, error) { return build("0", "-trimpath", "-ldflags", "-s -w") })
	patientBinary = sync.OnceValues(func() (string, error) { return build("0", "-trimpath", "-ldflags", "-s -w", "-tags", "patient") })
)

func built(tb testing.TB, build func() (string, error)) string {
	tb.Helper()
	path, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func build(cgo string, flags ...string) (path string, err error) {
	dir, err := os.MkdirTemp("", "resetd-")
	if err != nil {
		return "", err
	}
	building.Lock() // tests build several at the same time
	builtIn = append(builtIn, dir)
	building.Unlock()
	// Go keeps results of tests until the files that they have read change. A test does not read the source of the
	// binary, so this reads it, in this repository.
	_, _ = os.Stat("../../go.sum")
	for _, source := range []string{"cmd", "gen", "impl"} {
		_ = filepath.WalkDir("../../"+source, func(string, fs.DirEntry, error) error { return nil })
	}
	path = filepath.Join(dir, "resetd")
	command := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), "github.com/resetd/resetd/cmd/resetd")...)
	command.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// Process is a server that runs as a process.
type Process struct {
	URL   string // http://127.0.0.1:PORT
	Admin string // the operator's listener; empty without one
	Log   *Log   // standard output and standard error
	PID   int

	tb         testing.TB
	command    *exec.Cmd
	beforeStop func()
	stop       sync.Once
	ended      chan struct{}
	err        error // of the process, after its end
}

// Run starts a program that logs its addresses like `resetd serve`, and returns when it listens. The program ends with
// the test.
func Run(tb testing.TB, environ []string, program string, args ...string) *Process {
	tb.Helper()
	p := &Process{Log: &Log{}, tb: tb, ended: make(chan struct{}), command: exec.Command(program, args...)}
	p.command.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, environ...)
	file, err := os.OpenFile(filepath.Join(tb.TempDir(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	p.Log.file = file
	p.command.Stdout, p.command.Stderr = file, file
	if err := p.command.Start(); err != nil {
		tb.Fatal(err)
	}
	p.PID = p.command.Process.Pid
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() {
		_ = p.Stop()
		if strings.Contains(p.Log.String(), "WARNING: DATA RACE") {
			tb.Errorf("%s", p.Log)
		}
		_ = p.Log.String() // reads all of it before the file is removed
		_ = file.Close()
	})
	p.Log.ended = p.ended
	p.URL = "http://" + p.Log.Await(tb, `"listening","addr":"([^"]+)"`)
	if slices.ContainsFunc(environ, func(s string) bool { return strings.HasPrefix(s, "ADMIN_ADDR=127") }) {
		p.Admin = "http://" + p.Log.Await(tb, `"admin_addr":"([^"]+)"`)
	}
	return p
}

// Stop sends SIGTERM, and returns how the process ended. After a minute it kills the process.
func (p *Process) Stop() error {
	p.stop.Do(func() {
		if p.beforeStop != nil && !p.HasEnded() {
			p.beforeStop()
		}
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(time.Minute):
			p.tb.Error("resetd did not stop within a minute")
			p.Kill()
		}
	})
	<-p.ended
	return p.err
}

// Kill ends the process as `kill -9` does.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s os.Signal) { _ = p.command.Process.Signal(s) }

// HasEnded says whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Metrics returns all of /metrics.
func (p *Process) Metrics() string {
	p.tb.Helper()
	text, err := p.getMetrics()
	if err != nil {
		p.tb.Fatal(err)
	}
	return text
}

func (p *Process) getMetrics() (string, error) {
	response, err := http.Get(p.Admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// Scrape returns each series of /metrics with its value.
func (p *Process) Scrape() map[string]float64 {
	p.tb.Helper()
	series := map[string]float64{}
	for line := range strings.Lines(p.Metrics()) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64)
		if err != nil {
			p.tb.Fatalf("%q: %v", line, err)
		}
		series[line[:at]] = value
	}
	return series
}

// Metric returns the value of one series of /metrics.
func (p *Process) Metric(name, labels string) float64 {
	p.tb.Helper()
	if labels != "" {
		name += "{" + labels + "}"
	}
	value, found := p.Scrape()[name]
	if !found {
		p.tb.Fatalf("no %s", name)
	}
	return value
}

// Log is what a process has written so far.
type Log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	file  *os.File        // a process writes to it, so that an answer never comes before its record; nil: Write is called
	ended <-chan struct{} // nil: unknown
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		// The process appends after what was read.
		_, _ = l.text.ReadFrom(io.NewSectionReader(l.file, int64(l.text.Len()), math.MaxInt64/2))
	}
	return l.text.String()
}

// Await waits for a record that matches, and returns the last group of the pattern.
func (l *Log) Await(tb testing.TB, pattern string) string {
	tb.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		ended := false
		select {
		case <-l.ended:
			ended = true
		default:
		}
		if found := re.FindStringSubmatch(l.String()); found != nil {
			return found[len(found)-1]
		}
		if ended {
			tb.Fatalf("resetd has ended, and its log never had %s:\n%s", pattern, l)
		}
	}
	tb.Fatalf("the log never had %s:\n%s", pattern, l)
	return ""
}

// Records returns the records with this message. Each line must be a record, except for the error at the end.
func (l *Log) Records(tb testing.TB, message string) (records []map[string]any) {
	tb.Helper()
	for line := range strings.Lines(l.String()) {
		if strings.HasPrefix(line, "resetd: ") { // the error at the end
			continue
		}
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			tb.Fatalf("a log line that is no JSON: %q", line)
		}
		if record["msg"] == message {
			records = append(records, record)
		}
	}
	return records
}
