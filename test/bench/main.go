//go:build linux

/*
Bench measures what one request costs resetd, and puts it beside a floor: the same work in the
fewest lines of net/http (decode, two upstream calls, answer) without any of the checks.

	go run ./test/bench -resetd bin/resetd [-check] [-rounds 5] [-requests 2000] [-paths known,429] [-set NAME=value]

Four processes run: resetd as an operator would start it, the floor, one that stands in for
Supabase Auth and Mailgun and answers at once, and this one, which sends the requests. Each
path gets a fresh resetd and a fresh floor; they are loaded in turns, and what is printed is
the median of the rounds, so that other work on the machine disturbs both alike.

Processor time is user and system time of the whole process, as the kernel counts it: on a
busy machine it says more than requests per second, which four processes compete for here.
The ratio is the median of each round's ratio. Peak memory is VmHWM, the largest resident set
since the start.

Settings that are not the default: RESPONSE_QUANTUM=0s, or every answer would take half a
second; ADMIN_ADDR=off; limits wide enough to refuse nothing (with two windows each, like the
default ones, so that counting costs the same), but for the path 429, where one request an
hour is let through. Logs are written to a file, at the default level.

With -check the exit status is 1 when an aim is missed. Linux only: it reads /proc.
*/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// The aims. A ratio is processor time per request over that of the floor.
const (
	aimMailRatio   = 2.0 // known and unknown
	aimRefuseRatio = 1.6 // 400 and 429
	aimPeak        = 40 << 20
	aimIdle        = 30 << 20
	aimStart       = 100 * time.Millisecond
)

// accounts is how many addresses take turns, so that limits are counted for more than one.
const accounts = 1000

// path is one way that a request can go.
type path struct {
	name   string
	status int
	body   func(i int) string
	limit  string // RATE_LIMIT
	weight int    // times -requests, so that rounds take about equally long
	aim    float64
}

const wide = "1000000000-M,1000000000-H"

var paths = []path{
	{"known", 200, func(i int) string { return fmt.Sprintf(`{"email":"known%04d@example.com"}`, i%accounts) }, wide, 1, aimMailRatio},
	{"unknown", 200, func(i int) string { return fmt.Sprintf(`{"email":"nobody%03d@example.com"}`, i%accounts) }, wide, 1, aimMailRatio},
	{"400", 400, func(int) string { return `{"email":"not an address"}` }, wide, 5, aimRefuseRatio},
	{"429", 429, func(i int) string { return fmt.Sprintf(`{"email":"known%04d@example.com"}`, i%accounts) }, "1-H", 5, aimRefuseRatio},
}

type options struct {
	resetd              string
	rounds, requests    int
	connections, starts int
	check               bool
	paths               string
	env                 []string
}

func main() {
	// Children are told to die with the thread that started them (see process.go), so this
	// goroutine keeps the main thread, which lives as long as the process.
	runtime.LockOSThread()
	if len(os.Args) > 1 && os.Args[1] == asFloor {
		serveFloor(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == asStandIns {
		serveStandIns()
		return
	}
	var o options
	flag.StringVar(&o.resetd, "resetd", "bin/resetd", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each path")
	flag.IntVar(&o.requests, "requests", 2000, "requests of a round for known and unknown; five times as many for 400 and 429")
	flag.IntVar(&o.connections, "connections", 16, "connections that send requests at once")
	flag.IntVar(&o.starts, "starts", 7, "starts to measure")
	flag.BoolVar(&o.check, "check", false, "exit 1 when an aim is missed")
	flag.StringVar(&o.paths, "paths", "known,unknown,400,429", "which to measure")
	flag.Func("set", "a further `NAME=value` for resetd's environment, such as GOGC=200; may be repeated", func(entry string) error {
		o.env = append(o.env, entry)
		return nil
	})
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	met, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if o.check && !met {
		os.Exit(1)
	}
}

// run measures and prints; met says whether every aim was reached.
func run(ctx context.Context, o options) (met bool, err error) {
	dir, err := os.MkdirTemp("", "resetd-bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	standIns, err := start(ctx, dir, self, []string{asStandIns}, nil)
	if err != nil {
		return false, err
	}
	defer standIns.stop()

	b := &bench{ctx: ctx, options: o, dir: dir, self: self, standIns: standIns.url}
	ready, idle, err := b.starting()
	if err != nil {
		return false, err
	}
	var results []result
	for _, p := range paths {
		if !slices.Contains(strings.Split(o.paths, ","), p.name) {
			continue
		}
		r, err := b.path(p)
		if err != nil {
			return false, fmt.Errorf("path %s: %w", p.name, err)
		}
		results = append(results, r)
	}
	return b.report(ready, idle, results), nil
}

type bench struct {
	ctx      context.Context
	options  options
	dir      string
	self     string
	standIns string // http://127.0.0.1:PORT
}

// resetd starts the binary under test.
func (b *bench) resetd(rateLimit string) (*process, error) {
	return start(b.ctx, b.dir, b.options.resetd, []string{"serve"}, append([]string{
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", "RESPONSE_QUANTUM=0s",
		"SUPABASE_URL=" + b.standIns, "SUPABASE_SERVICE_ROLE_KEY=bench-service-role-key",
		"MAILGUN_API_BASE=" + b.standIns, "MAILGUN_API_KEY=bench-mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
		"SITE_URL=" + site, "RATE_LIMIT=" + rateLimit, "RECIPIENT_LIMIT=" + wide, "MAIL_DECOY_LIMIT=1000000000-H",
	}, b.options.env...))
}

// starting measures the time from exec to the first 200 of /healthz, and the resident set of a
// server that has done nothing else, a second later.
func (b *bench) starting() (ready time.Duration, idle int64, err error) {
	var times []time.Duration
	for i := range max(b.options.starts, 1) {
		began := time.Now()
		p, err := b.resetd(wide)
		if err != nil {
			return 0, 0, err
		}
		for {
			response, err := http.Get(p.url + "/healthz")
			if err == nil {
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Since(began) > 10*time.Second {
				p.stop()
				return 0, 0, errors.New("resetd is not healthy after 10 s")
			}
		}
		times = append(times, time.Since(began))
		if i == 0 {
			time.Sleep(time.Second)
			idle, err = p.memory("VmRSS")
		}
		p.stop()
		if err != nil {
			return 0, 0, err
		}
	}
	return median(times), idle, nil
}

// side is one of the two that are compared, over all rounds.
type side struct {
	processor []time.Duration // per request
	rate      []float64       // requests per second
	peak      int64
}

type result struct {
	path
	resetd, floor side
	ratio         []float64
}

func (b *bench) path(p path) (r result, err error) {
	r.path = p
	resetd, err := b.resetd(p.limit)
	if err != nil {
		return r, err
	}
	defer resetd.stop()
	target := strings.TrimPrefix(resetd.url, "http://")
	if p.status == http.StatusTooManyRequests { // use up the one that is let through
		if err := newLoad(target, p, 200, 1).send(b.ctx, 1); err != nil {
			return r, err
		}
	}
	toResetd := newLoad(target, p, p.status, b.options.connections)
	defer toResetd.close()
	requests := b.options.requests * p.weight
	if err := toResetd.send(b.ctx, requests/2); err != nil { // warms up
		return r, err
	}

	// The floor answers with as many bytes, and its mails are as large.
	mailBytes, err := lastMailBytes(b.standIns)
	if err != nil {
		return r, err
	}
	floor, err := start(b.ctx, b.dir, b.self, []string{asFloor, "-upstream", b.standIns, "-mail", fmt.Sprint(mailBytes),
		"-status", fmt.Sprint(p.status), "-answer", fmt.Sprint(toResetd.answerBytes.Load())}, nil)
	if err != nil {
		return r, err
	}
	defer floor.stop()
	toFloor := newLoad(strings.TrimPrefix(floor.url, "http://"), p, p.status, b.options.connections)
	defer toFloor.close()
	if err := toFloor.send(b.ctx, requests/2); err != nil {
		return r, err
	}

	for range b.options.rounds {
		ours, err := r.resetd.round(b.ctx, resetd, toResetd, requests)
		if err != nil {
			return r, err
		}
		theirs, err := r.floor.round(b.ctx, floor, toFloor, requests)
		if err != nil {
			return r, err
		}
		r.ratio = append(r.ratio, float64(ours)/float64(theirs))
	}
	if r.resetd.peak, err = resetd.memory("VmHWM"); err != nil {
		return r, err
	}
	r.floor.peak, err = floor.memory("VmHWM")
	return r, err
}

// round sends the requests and returns the processor time of one.
func (s *side) round(ctx context.Context, p *process, to *load, requests int) (time.Duration, error) {
	before, err := p.processorTime()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := to.send(ctx, requests); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := p.processorTime()
	if err != nil {
		return 0, err
	}
	each := (after - before) / time.Duration(requests)
	s.processor = append(s.processor, each)
	s.rate = append(s.rate, float64(requests)/took.Seconds())
	return each, nil
}

// report prints the table.
func (b *bench) report(ready time.Duration, idle int64, results []result) (met bool) {
	o := b.options
	fmt.Printf("resetd beside a floor of net/http that makes the same upstream calls.\n"+
		"Medians of %d rounds of %d requests (400 and 429: %d) over %d connections, on %d processors.\n"+
		"RESPONSE_QUANTUM=0s: answers do not wait for the beat.\n\n",
		o.rounds, o.requests, 5*o.requests, o.connections, runtime.NumCPU())

	met = true
	verdict := func(ok bool) string {
		if !ok {
			met = false
			return "missed"
		}
		return "ok"
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "path\tprocessor time\tfloor\tratio\taim\t\trequests/s\tfloor\tpeak memory\tfloor\t")
	var peak int64
	for _, r := range results {
		peak = max(peak, r.resetd.peak)
		ratio := median(r.ratio)
		fmt.Fprintf(w, "%s\t%d µs\t%d µs\t%.2f\t≤ %.1f\t%s\t%.0f\t%.0f\t%.1f MB\t%.1f MB\t\n", r.name,
			median(r.resetd.processor).Microseconds(), median(r.floor.processor).Microseconds(), ratio, r.aim, verdict(ratio <= r.aim),
			median(r.resetd.rate), median(r.floor.rate), megabytes(r.resetd.peak), megabytes(r.floor.peak))
	}
	w.Flush()
	fmt.Println()

	w = tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "peak memory, all paths\t%.1f MB\t≤ %.0f MB\t%s\t\n", megabytes(peak), megabytes(aimPeak), verdict(peak <= aimPeak))
	fmt.Fprintf(w, "memory, idle\t%.1f MB\t< %.0f MB\t%s\t\n", megabytes(idle), megabytes(aimIdle), verdict(idle < aimIdle))
	fmt.Fprintf(w, "start to healthy\t%d ms\t< %d ms\t%s\t\n", ready.Milliseconds(), aimStart.Milliseconds(), verdict(ready < aimStart))
	w.Flush()
	return met
}

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func median[T int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}

// listen is the loopback, and nothing else.
func listen() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
