/*
Bench measures what one request costs resetd, and puts it beside a floor: the same work in the
fewest lines of net/http (decode, ask for the link, send the mail if there is an account, answer)
without any of the checks.

	go run ./test/bench -resetd bin/resetd [-check] [-rounds 5] [-requests 4000] [-paths known,429] [-set NAME=value]

Four processes run: resetd as an operator would start it, the floor, a stand-in for
Supabase Auth and Mailgun that answers at once, and this one, which sends the requests. Each
path gets a fresh resetd and a fresh floor; they are loaded in turns, and what is printed is
the median of the rounds, so that other work on the machine disturbs both alike.

Requests that are refused come as fast as they are answered, as in a flood. Requests that are
answered 200 come at the same rate to both, 1,000 a second. As fast as possible, the floor would
make its calls in one burst, and resetd its own spread over a second: the floor would be measured
with both processors at work, and resetd with processors that go to sleep between two calls, which
costs more for each of them, whatever the program. -rate 0 measures that.

resetd answers first and delivers later, so a round goes on until everything that it accepted
is delivered, and that is counted in. The stand-ins tell when: no address comes twice, and
bench fails unless each was looked up once, and mailed once if it has an account. Requests per
second are those of the answers; "delivered" is when the last delivery ended, from the first
request. resetd begins each delivery after a random part of a second, 8 at once (the default of
MAX_DELIVERIES, which stand-ins that answer at once do not use up).

The requests are sent by vegeta, on the same processors. Beside a sender that wrote bytes, requests per
second are a third to a half fewer, and each costs both servers a quarter more, but the ratios are the
same (four runs of each in turns, November 2026: 400 without the log 1.71 and 1.68, 429 1.41 and 1.38).

Processor time is user and system time of the whole process, as the kernel counts it: on a
busy machine it says more than requests per second, which four processes compete for here.
The ratio is the median of each round's ratio. Peak memory is VmHWM, the largest resident set
since the start. The first line says how much of the processors other programs took: absolute
times, and the latency above all, need a quiet machine.

Four more parts follow, which -paths knows as well. "latency" sends 500 requests a second for
10 s, half of them for accounts, without regard to earlier ones while fewer than 64 wait. The stand-ins take as long
as hosted services were measured to: 29 ms for the lookup of an account, 8 ms for that of an
unknown address, 200 ms for a mail. Times are from when a request was sent to the last byte of
its answer; "sender late" says how long after its time it was sent. By default 8 deliveries run at once, which is too few for so many accounts, so the
outbox grows; with MAX_DELIVERIES=100 it does not. The answers must not show it. "outbox" fills the
outbox with requests for accounts whose mail is answered 500, and measures the resident set when
each has been tried; it has an aim of its own, and is not in the peak memory of the others. "growth"
shows what a request costs when a thousand clients have been seen, and a million, or when up to
20,000 requests are pending: a request must not pay for those before it. "flood" refuses requests of 100,000 clients at full speed, and measures
the answers to 100 valid requests a second from others, each of which must be mailed.

Settings that are not the default: limits wide enough to refuse nothing (with two windows each,
like the default ones, so that counting costs the same), but for the path 429, where one request
an hour is let through; MAX_ACCEPTED=20000, because rounds send more than real clients do (not
more than it needs, because memory for so many is set aside, and spares the garbage collector
work); SHUTDOWN_DELAY=0s. Logs are written to a file, at the default level and with LOG_REFUSALS as it
is by default; 400 and 429 are measured with LOG_LEVEL=error too.

With -check the exit status is 1 when an aim is missed by more than 15 %. Linux only: it reads /proc.
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
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/prometheus/procfs"
	"github.com/redis/go-redis/v9"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"github.com/resetd/resetd/test/measure"
)

// These are the aims. A ratio is processor time per request over that of the floor, which spends nearly all of it
// in net/http, on the connection and the headers. Of the 77 µs of a 400 without the log (profile of November
// 2026), resetd spends 5 µs on the schema, 3 on strict JSON, 2 on counting the client, 1 on finding its address, 2
// on keeping idle connections few, 3 on six further headers, 1 on the request's id, and 1 on the metrics. Of the
// 55 µs of a 429, it spends 3 µs on counting the client, 1 on a time limit for the rest of the body, and the same
// on the others. Each of these is a promise; less would be another server.
const (
	aimKnownRatio   = 1.5
	aimUnknownRatio = 1.6
	aim400          = 1.7 // without the log
	aim400Logged    = 2.0
	aim429          = 1.3
	aim429Logged    = 1.3
	aimPeak         = 60 << 20
	aimIdle         = 30 << 20
	aimOutbox       = 40 << 20 // above idle
	aimGrowth       = 1.15     // from a thousand clients to a million
	aimFlood        = 80 << 20 // resident at most
	aimFloodP99     = 20 * time.Millisecond
	aimStart        = 100 * time.Millisecond
	aimP50          = time.Millisecond
	aimP99          = 10 * time.Millisecond
)

// path is a way that a request can go.
type path struct {
	name    string
	status  int
	account bool   // whether requests answered 200 are mailed
	limit   string // RATE_LIMIT
	setting string // a further setting; may be empty
	weight  int    // factor for -requests, so that rounds take similar times
	aim     float64
}

// noLog turns off the records of answers, to measure what they cost.
const noLog = "LOG_LEVEL=error"

var paths = []path{
	{name: "known", status: 200, account: true, limit: measure.Wide, weight: 1, aim: aimKnownRatio},
	{name: "unknown", status: 200, limit: measure.Wide, weight: 1, aim: aimUnknownRatio},
	{name: "400", status: 400, limit: measure.Wide, weight: 3, aim: aim400Logged},
	{name: "400", status: 400, limit: measure.Wide, setting: noLog, weight: 3, aim: aim400},
	{name: "429", status: 429, account: true, limit: "1-H", weight: 3, aim: aim429Logged},
	{name: "429", status: 429, account: true, limit: "1-H", setting: noLog, weight: 3, aim: aim429},
}

func invalid() string { return `{"email":"not an address"}` }

// These parts are no paths.
const (
	partLatency = "latency"
	partOutbox  = "outbox"
	partGrowth  = "growth"
	partFlood   = "flood"
)

type options struct {
	resetd              string
	rounds, requests    int
	connections, starts int
	rate                int
	check               bool
	paths               string
	env                 []string
}

func main() {
	is, err := measure.IsStandIns(os.Args)
	if len(os.Args) == 3 && os.Args[1] == asFloor {
		is, err = true, new(floor).serve(os.Args[2])
	}
	if is {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.resetd, "resetd", "bin/resetd", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each path")
	flag.IntVar(&o.requests, "requests", 4000, "requests of a round for known and unknown; three times as many for 400 and 429")
	flag.IntVar(&o.connections, "connections", 16, "connections that send requests at once")
	flag.IntVar(&o.rate, "rate", 1000, "requests a second for known and unknown; 0: as fast as they are answered")
	flag.IntVar(&o.starts, "starts", 7, "starts to measure")
	flag.BoolVar(&o.check, "check", false, "exit 1 when an aim is missed by more than 15 %")
	flag.StringVar(&o.paths, "paths", "known,unknown,400,429,latency,outbox,growth,flood", "which to measure")
	flag.Func("set", "a further `NAME=value` for resetd's environment, such as GOGC=200; may be repeated", func(entry string) error {
		o.env = append(o.env, entry)
		return nil
	})
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(1000) // rarely, because it takes a processor from resetd
	met, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if o.check && !met {
		os.Exit(1)
	}
}

// run measures and prints. met says whether no aim was missed by more than margin.
func run(ctx context.Context, o options) (met bool, err error) {
	b := &bench{ctx: ctx, options: o}
	before, err := processors()
	if err != nil {
		return false, err
	}
	m := measured{}
	if m.ready, m.idle, err = b.starting(); err != nil {
		return false, err
	}
	for _, p := range paths {
		if !b.measures(p.name) {
			continue
		}
		r, err := b.path(p)
		if err != nil {
			return false, fmt.Errorf("path %s: %w", p.name, err)
		}
		m.results = append(m.results, r)
	}
	if b.measures(partLatency) {
		for _, deliveries := range []string{"", "MAX_DELIVERIES=100"} {
			l, err := b.latency(deliveries)
			if err != nil {
				return false, fmt.Errorf("latency: %w", err)
			}
			m.latencies = append(m.latencies, l)
		}
	}
	if b.measures(partOutbox) {
		if m.outbox, err = b.fullOutbox(); err != nil {
			return false, fmt.Errorf("outbox: %w", err)
		}
	}
	if b.measures(partGrowth) {
		if m.growth, err = b.growing(); err != nil {
			return false, fmt.Errorf("growth: %w", err)
		}
		if m.pending, err = b.growingPending(); err != nil {
			return false, fmt.Errorf("growth with pending requests: %w", err)
		}
	}
	if b.measures(partFlood) {
		if m.flood, err = b.flooding(); err != nil {
			return false, fmt.Errorf("flood: %w", err)
		}
	}
	if m.others, err = othersSince(before); err != nil {
		return false, err
	}
	return b.report(m), nil
}

type bench struct {
	ctx     context.Context
	options options
}

// measured is all that is printed.
type measured struct {
	ready     time.Duration
	idle      uint64
	results   []result
	latencies []latency
	outbox    outbox
	growth    []growth // with clients
	pending   []growth // with pending requests
	flood     flood
	others    float64 // the part of the processors that other programs took
}

func (b *bench) measures(part string) bool {
	return slices.Contains(strings.Split(b.options.paths, ","), part)
}

// processors says how the machine's processors have spent their time.
func processors() (procfs.Stat, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return procfs.Stat{}, err
	}
	return proc.Stat()
}

// othersSince returns the share of the processors' time since then that went to programs other than this one and
// its children, which must all have ended.
func othersSince(before procfs.Stat) (float64, error) {
	now, err := processors()
	if err != nil {
		return 0, err
	}
	self, err := procfs.Self()
	if err != nil {
		return 0, err
	}
	own, err := self.Stat()
	if err != nil {
		return 0, err
	}
	was, is := before.CPUTotal, now.CPUTotal
	idle := is.Idle + is.Iowait - was.Idle - was.Iowait
	busy := is.User + is.Nice + is.System + is.IRQ + is.SoftIRQ + is.Steal - was.User - was.Nice - was.System - was.IRQ - was.SoftIRQ - was.Steal
	ours := float64(own.UTime+own.STime) + float64(own.CUTime+own.CSTime)
	return max(0, (busy-ours/100)/(busy+idle)), nil // a tick is 10 ms
}

// standIns answer for Supabase Auth and Mailgun, and know which calls they must have had so far.
type standIns struct {
	measure.StandIns
	people *measure.People
	want   measure.Tally
}

func (b *bench) standIns(u measure.Upstreams) (*standIns, error) {
	s, err := measure.StartStandIns(b.ctx, u)
	return &standIns{StandIns: s, people: &measure.People{Seed: u.Seed}}, err
}

// ask returns bodies for an address of one kind, each for another address.
func (s *standIns) ask(account bool) func() string {
	return func() string { return `{"email":"` + s.people.Of(account) + `"}` }
}

// pollEvery is how often the stand-ins are asked whether all is delivered. The server under test is not asked,
// because its answer would count.
const pollEvery = 25 * time.Millisecond

// await waits until all accepted requests are delivered.
func (s *standIns) await(ctx context.Context) error {
	for began := time.Now(); ; time.Sleep(pollEvery) {
		is, err := s.Tally()
		switch {
		case err != nil:
			return err
		case is.Lookups >= s.want.Lookups && is.Mails >= s.want.Mails && is.Refused >= s.want.Refused:
			return nil
		case time.Since(began) > time.Minute:
			return fmt.Errorf("not everything is delivered after a minute: %w", s.exactlyOnce())
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// exactlyOnce returns an error unless each accepted request was delivered exactly once.
func (s *standIns) exactlyOnce() error {
	is, err := s.Tally()
	if err != nil {
		return err
	}
	if is.Lookups != s.want.Lookups || is.Mails != s.want.Mails || is.Repeated != s.want.Repeated {
		return fmt.Errorf("%d addresses were looked up (wanted %d) and %d mailed (wanted %d), %d times more than once",
			is.Lookups, s.want.Lookups, is.Mails, s.want.Mails, is.Repeated)
	}
	return nil
}

// emptyRedis removes the counts of earlier paths, if -set names a Redis.
func (b *bench) emptyRedis() error {
	for _, entry := range b.options.env {
		url, isRedis := strings.CutPrefix(entry, "REDIS_URL=")
		if !isRedis {
			continue
		}
		options, err := redis.ParseURL(url)
		if err != nil {
			return err
		}
		client := redis.NewClient(options)
		defer client.Close()
		if err := client.FlushAll(b.ctx).Err(); err != nil {
			return err
		}
	}
	return nil
}

// resetd starts the binary under test.
func (b *bench) resetd(upstreams string, settings ...string) (*measure.Process, error) {
	// A free port, because without the log nothing says where it listens.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().String()
	listener.Close()
	env := []string{"ADMIN_ADDR=127.0.0.1:0", "MAX_ACCEPTED=20000"}
	return measure.StartResetd(b.ctx, b.options.resetd, addr, upstreams, slices.Concat(env, settings, b.options.env)...)
}

// starting measures the time from exec to the first 200 of /healthz, and a second later the resident set of this
// idle server.
func (b *bench) starting() (ready time.Duration, idle uint64, err error) {
	var times []time.Duration
	for i := range max(b.options.starts, 1) {
		began := time.Now()
		p, err := b.resetd("http://127.0.0.1:9") // nothing listens there; without a request, nothing is called
		if err != nil {
			return 0, 0, err
		}
		for {
			response, err := http.Get(p.URL() + "/healthz")
			if err == nil {
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Since(began) > 10*time.Second {
				p.Stop()
				return 0, 0, errors.New("resetd is not healthy after 10 s")
			}
		}
		times = append(times, time.Since(began))
		if i == 0 {
			time.Sleep(time.Second)
			idle, _, err = p.Memory()
		}
		p.Stop()
		if err != nil {
			return 0, 0, err
		}
	}
	return median(times), idle, nil
}

// side is one of the two compared servers, over all rounds.
type side struct {
	processor []time.Duration // per request
	rate      []float64       // answers per second
	delivered []time.Duration // from the first request to the end of the last delivery
	peak      uint64
}

type result struct {
	path
	resetd, floor side
	ratio         []float64
}

func (b *bench) path(p path) (r result, err error) {
	r.path = p
	if err := b.emptyRedis(); err != nil {
		return r, err
	}
	upstreams, err := b.standIns(measure.Upstreams{})
	if err != nil {
		return r, err
	}
	defer upstreams.Stop()
	settings := []string{"RATE_LIMIT=" + p.limit}
	if p.setting != "" {
		settings = append(settings, p.setting)
	}
	resetd, err := b.resetd(upstreams.URL(), settings...)
	if err != nil {
		return r, err
	}
	defer resetd.Stop()
	t := &trial{bench: b, path: p, upstreams: upstreams}
	if p.status == http.StatusTooManyRequests { // use up what the limit admits
		first := t.load(resetd, http.StatusOK, 1)
		defer first.close()
		if err := t.warmUp(first, 1); err != nil {
			return r, err
		}
	}
	toResetd := t.load(resetd, p.status, b.options.connections)
	defer toResetd.close()
	requests := b.options.requests * p.weight
	if err := t.warmUp(toResetd, requests/2); err != nil {
		return r, err
	}

	// The floor answers with as many bytes, and its mails are as large.
	calls, err := upstreams.Tally()
	if err != nil {
		return r, err
	}
	floor, err := b.floor(floor{Upstream: upstreams.URL(), MailBytes: calls.MailBytes, Status: p.status, AnswerBytes: toResetd.answerBytes})
	if err != nil {
		return r, err
	}
	defer floor.Stop()
	toFloor := t.load(floor, p.status, b.options.connections)
	defer toFloor.close()
	if err := t.warmUp(toFloor, requests/2); err != nil {
		return r, err
	}

	for range b.options.rounds {
		ours, err := t.round(&r.resetd, resetd, toResetd, requests)
		if err != nil {
			return r, err
		}
		theirs, err := t.round(&r.floor, floor, toFloor, requests)
		if err != nil {
			return r, err
		}
		r.ratio = append(r.ratio, float64(ours)/float64(theirs))
	}
	if _, r.resetd.peak, err = resetd.Memory(); err != nil {
		return r, err
	}
	if _, r.floor.peak, err = floor.Memory(); err != nil {
		return r, err
	}
	resetd.Stop() // delivers what is left, which must be nothing
	return r, upstreams.exactlyOnce()
}

// trial sends the requests of one path to resetd and to the floor, which share their upstreams.
type trial struct {
	*bench
	path
	upstreams *standIns
}

func (t *trial) load(server *measure.Process, status, connections int) *load {
	body := t.upstreams.ask(t.account)
	if t.status == http.StatusBadRequest {
		body = invalid
	}
	l := newLoad(server, status, body, connections)
	if t.options.rate > 0 && t.status == http.StatusOK {
		l.rate = vegeta.Rate{Freq: t.options.rate, Per: time.Second}
	}
	return l
}

// deliver sends requests, and waits until all that were accepted are delivered.
func (t *trial) deliver(to *load, requests int) (answered, delivered time.Duration, err error) {
	began := time.Now()
	if _, _, err := to.send(t.ctx, requests); err != nil {
		return 0, 0, err
	}
	answered = time.Since(began)
	if to.status == http.StatusOK {
		t.upstreams.want.Lookups += requests
		if t.account {
			t.upstreams.want.Mails += requests
		}
	}
	if err := t.upstreams.await(t.ctx); err != nil {
		return 0, 0, err
	}
	delivered = time.Since(began)
	time.Sleep(pollEvery) // wait for a server's work after its last call
	return answered, delivered, t.upstreams.exactlyOnce()
}

func (t *trial) warmUp(to *load, requests int) error {
	_, _, err := t.deliver(to, requests)
	return err
}

// round sends the requests, and returns the processor time of a request with its delivery.
func (t *trial) round(s *side, p *measure.Process, to *load, requests int) (time.Duration, error) {
	before, err := p.ProcessorTime()
	if err != nil {
		return 0, err
	}
	answered, delivered, err := t.deliver(to, requests)
	if err != nil {
		return 0, err
	}
	after, err := p.ProcessorTime()
	if err != nil {
		return 0, err
	}
	each := (after - before) / time.Duration(requests)
	s.processor = append(s.processor, each)
	s.rate = append(s.rate, float64(requests)/answered.Seconds())
	s.delivered = append(s.delivered, delivered)
	return each, nil
}

// margin is by how much an aim may be missed because of other work on the machine.
const margin = 1.15

// report prints the tables, and says whether no aim was missed by more than that.
func (b *bench) report(m measured) (met bool) {
	o := b.options
	met = true
	verdict := func(is, aim float64) string {
		switch {
		case is <= aim:
			return "ok"
		case is <= margin*aim:
			return "missed"
		}
		met = false
		return "missed by far"
	}
	table := func() *tabwriter.Writer { return tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight) }

	fmt.Printf("Other programs took %.0f %% of the %d processors meanwhile.\n\n", 100*m.others, runtime.NumCPU())
	var peak uint64
	if len(m.results) > 0 {
		fmt.Printf("resetd beside a floor of net/http that makes the same upstream calls before it answers.\n"+
			"Medians of %d rounds over %d connections: %d requests, %d a second, for known and unknown;\n"+
			"%d, as fast as they are answered, for 400 and 429. A round ends with its last delivery, which is counted in.\n\n",
			o.rounds, o.connections, o.requests, o.rate, 3*o.requests)
		w := table()
		fmt.Fprintln(w, "path\tprocessor time\tfloor\tratio\taim\t\trequests/s\tfloor\tdelivered\tfloor\tpeak memory\tfloor\t")
		for _, r := range m.results {
			peak = max(peak, r.resetd.peak)
			ratio := median(r.ratio)
			name := r.name
			if r.setting != "" {
				name += ", " + r.setting
			}
			fmt.Fprintf(w, "%s\t%d µs\t%d µs\t%.2f\t≤ %.1f\t%s\t%.0f\t%.0f\t%.1f s\t%.1f s\t%.1f MB\t%.1f MB\t\n", name,
				median(r.resetd.processor).Microseconds(), median(r.floor.processor).Microseconds(), ratio, r.aim, verdict(ratio, r.aim),
				median(r.resetd.rate), median(r.floor.rate), median(r.resetd.delivered).Seconds(), median(r.floor.delivered).Seconds(),
				megabytes(r.resetd.peak), megabytes(r.floor.peak))
		}
		w.Flush()
		fmt.Println()
	}

	if len(m.latencies) > 0 {
		fmt.Printf("Latency of the answers to %d requests a second for %v, half of them for accounts.\n"+
			"Lookups take %v and %v (no account), mails %v.\n\n",
			perSecond, steadyTime, likeHosted.AccountTakes, likeHosted.UnknownTakes, likeHosted.MailTakes)
		w := table()
		fmt.Fprintln(w, "deliveries at once\tp50\taim\t\tp99\taim\t\tmax\tsender late, p99\tpending at the end\tmail after, p50\tp99\tpeak memory\t")
		for _, l := range m.latencies {
			peak = max(peak, l.peak)
			p50, p99 := quantile(l.answered, 0.5), quantile(l.answered, 0.99)
			after50, after99 := "", ""
			if len(l.sent) > 0 {
				after50, after99 = milliseconds(quantile(l.sent, 0.5)), milliseconds(quantile(l.sent, 0.99))
			}
			fmt.Fprintf(w, "%s\t%s\t≤ %s\t%s\t%s\t≤ %s\t%s\t%s\t%s\t%d\t%s\t%s\t%.1f MB\t\n", l.deliveries,
				milliseconds(p50), milliseconds(aimP50), verdict(p50.Seconds(), aimP50.Seconds()), milliseconds(p99), milliseconds(aimP99), verdict(p99.Seconds(), aimP99.Seconds()),
				milliseconds(slices.Max(l.answered)), milliseconds(quantile(l.late, 0.99)), l.pending, after50, after99, megabytes(l.peak))
		}
		w.Flush()
		fmt.Println()
	}

	for _, growing := range []struct {
		what, of string
		rows     []growth
	}{
		{"A 400 without the log, when so many clients have been seen", "clients", m.growth},
		{"A 200 without the log and its delivery, when so many requests are pending", "pending", m.pending},
	} {
		if len(growing.rows) == 0 {
			continue
		}
		fmt.Printf("%s: growth is that of the ratio to the floor.\n\n", growing.what)
		w := table()
		fmt.Fprintf(w, "%s\tprocessor time\tratio\tgrowth\taim\t\tresident memory\t\n", growing.of)
		for _, g := range growing.rows {
			grown := g.ratio / growing.rows[0].ratio
			fmt.Fprintf(w, "%d\t%d µs\t%.2f\t%.2f\t≤ %.2f\t%s\t%.1f MB\t\n", g.number, g.processor.Microseconds(),
				g.ratio, grown, aimGrowth, verdict(grown, aimGrowth), megabytes(g.memory))
		}
		w.Flush()
		fmt.Println()
	}

	if f := m.flood; len(f.answered) > 0 {
		fmt.Printf("Others during a flood from %d clients, of which %.0f requests a second were refused.\n\n", floodClients, f.refused)
		p99 := quantile(f.answered, 0.99)
		w := table()
		fmt.Fprintln(w, "p50\tp99\taim\t\tmax\tsender late, p99\tpeak memory\taim\t\t")
		fmt.Fprintf(w, "%s\t%s\t≤ %s\t%s\t%s\t%s\t%.1f MB\t≤ %.0f MB\t%s\t\n", milliseconds(quantile(f.answered, 0.5)),
			milliseconds(p99), milliseconds(aimFloodP99), verdict(p99.Seconds(), aimFloodP99.Seconds()), milliseconds(slices.Max(f.answered)),
			milliseconds(quantile(f.late, 0.99)), megabytes(f.peak), megabytes(aimFlood), verdict(float64(f.peak), aimFlood))
		w.Flush()
		fmt.Println()
	}

	w := table()
	if b.measures(partOutbox) {
		above := max(m.outbox.full, m.outbox.idle) - m.outbox.idle
		fmt.Fprintf(w, "memory above idle, %d pending requests\t%.1f MB\t≤ %.0f MB\t%s\t\n", outboxSize, megabytes(above), megabytes(aimOutbox), verdict(float64(above), aimOutbox))
	}
	if peak > 0 {
		fmt.Fprintf(w, "peak memory, all tables\t%.1f MB\t≤ %.0f MB\t%s\t\n", megabytes(peak), megabytes(aimPeak), verdict(float64(peak), aimPeak))
	}
	fmt.Fprintf(w, "memory, idle\t%.1f MB\t≤ %.0f MB\t%s\t\n", megabytes(m.idle), megabytes(aimIdle), verdict(float64(m.idle), aimIdle))
	fmt.Fprintf(w, "start to healthy\t%d ms\t≤ %d ms\t%s\t\n", m.ready.Milliseconds(), aimStart.Milliseconds(), verdict(m.ready.Seconds(), aimStart.Seconds()))
	w.Flush()
	return met
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.2g ms", d.Seconds()*1000) }

func megabytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

func median[T float64 | time.Duration](values []T) T { return quantile(values, 0.5) }

func quantile[T float64 | time.Duration](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
