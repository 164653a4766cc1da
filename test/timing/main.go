/*
Timing asks whether the time of an answer tells who has an account.

	go run ./test/timing -resetd bin/resetd [-n 2000] [-only default] [-connections 100]

It starts the real binary between stand-ins that take as long as the real services were
measured to: Supabase Auth's generate_link 29 ms for an account and 8 ms for a stranger,
Mailgun 200 ms with a long tail (log-normal; one call in a hundred takes 700 ms or more). Then
it asks for accounts and strangers in random order, over many connections whose requests are
spread over the beat, every address once, and writes down when the first byte of each answer
arrived.

What is printed is the AUC: the chance that the answer for a random account came later than
that for a random stranger, where a tie counts half. 0.5 is no information, 1 is certainty.
The interval is DeLong's for 95 %. There are two of it:

	beat     on which multiple of RESPONSE_QUANTUM the answer came: what can be told across
	         the internet, whatever the noise
	offset   how long after that beat, to the microsecond: what can be told next door
	         (without a beat: the whole time)

The first two rows are the default settings, and RESPONSE_QUANTUM=0s, which has to show the
difference: a test that cannot see a leak proves nothing. The others are faults that meet
accounts only while both kinds are still answered 200; a row that starts with ! is one whose
interval does not hold 0.5.

The exit status is 1 if an interval of the default settings does not hold 0.5. As one in
twenty misses the truth by chance, such a result is measured again with four times as many
requests, and counts only if it comes again.

Settings that are not the default: limits wide enough to refuse nothing, ADMIN_ADDR=off.
*/
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// quantum is RESPONSE_QUANTUM's default.
const quantum = 500 * time.Millisecond

// scenario is one row.
type scenario struct {
	name    string
	quantum time.Duration
	faults  faults // that meet accounts only
	env     []string
}

var scenarios = []scenario{
	{name: "default", quantum: quantum},
	{name: "RESPONSE_QUANTUM=0s", env: []string{"RESPONSE_QUANTUM=0s"}},
	{name: "Supabase 500", quantum: quantum, faults: faults{supabase: refuse(500)}},
	{name: "Supabase 401", quantum: quantum, faults: faults{supabase: refuse(401)}},
	{name: "Supabase bare 404", quantum: quantum, faults: faults{supabase: refuse(404)}},
	{name: "Supabase reset", quantum: quantum, faults: faults{supabase: reset}},
	{name: "Supabase hang", quantum: quantum, faults: faults{supabase: hang}},
	{name: "Supabase drip", quantum: quantum, faults: faults{supabase: drip}},
	{name: "Mailgun 400", quantum: quantum, faults: faults{mailgun: refuse(400)}},
	{name: "Mailgun 500", quantum: quantum, faults: faults{mailgun: refuse(500)}},
	{name: "Mailgun hang", quantum: quantum, faults: faults{mailgun: hang}},
}

type options struct {
	resetd      string
	n           int
	connections int
	only        string
	env         []string
}

func main() {
	var o options
	flag.StringVar(&o.resetd, "resetd", "bin/resetd", "the binary to ask")
	flag.IntVar(&o.n, "n", 2000, "requests for accounts, and as many for strangers, of each row")
	flag.IntVar(&o.connections, "connections", 100, "connections to ask over at once")
	flag.StringVar(&o.only, "only", "", "rows whose name has one of these in it, comma separated")
	flag.Func("set", "a further `NAME=value` for resetd's environment; may be repeated", func(entry string) error {
		o.env = append(o.env, entry)
		return nil
	})
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	passed, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "timing:", err)
		os.Exit(1)
	}
	if !passed {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (passed bool, err error) {
	fmt.Printf("Who has an account, by the time of the answer? 0.5: no telling; 1: with certainty (95 %% intervals).\n"+
		"%d accounts and %d strangers a row, in random order over %d connections.\n\n", o.n, o.n, o.connections)
	fmt.Println(heading)
	passed = true
	for i, s := range scenarios {
		if o.only != "" && !slices.ContainsFunc(strings.Split(o.only, ","), func(part string) bool { return strings.Contains(s.name, part) }) {
			continue
		}
		s.env = append(slices.Clone(s.env), o.env...)
		r, err := measure(ctx, o, s, o.n)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println(r)
		switch {
		case i == 0 && r.tells():
			again, err := measure(ctx, o, s, 4*o.n)
			if err != nil {
				return false, fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Println(again)
			if again.tells() {
				fmt.Println("The time of an answer tells who has an account.")
				passed = false
			}
		case s.quantum == 0 && !r.tells():
			fmt.Println("Without the beat the difference must show: this test is blind.")
			passed = false
		}
	}
	return passed, nil
}

// result is a row.
type result struct {
	scenario
	n               int
	beat, offset    auc
	known, stranger sample
}

// tells says whether the answers of accounts can be told from those of strangers.
func (r result) tells() bool { return r.quantum > 0 && r.beat.tells() || r.offset.tells() }

// sample is the answers of one kind, each number sorted by itself.
type sample struct{ beats, offsets []time.Duration }

func newSample(times []time.Duration, quantum time.Duration) (s sample) {
	for _, took := range times {
		beat := time.Duration(0)
		if quantum > 0 {
			beat = (took + quantum/2) / quantum // it goes out a little after
		}
		s.beats = append(s.beats, beat)
		s.offsets = append(s.offsets, took-beat*quantum)
	}
	slices.Sort(s.beats)
	slices.Sort(s.offsets)
	return s
}

// later is the share of answers that missed the first beat, in percent.
func (s sample) later() float64 {
	first, _ := slices.BinarySearch(s.beats, 2)
	return 100 * float64(len(s.beats)-first) / float64(len(s.beats))
}

func (s sample) median() float64 { return float64(s.offsets[len(s.offsets)/2].Microseconds()) / 1000 }

const (
	heading = "                                 beat               missed the first    offset            its median, ms\n" +
		"                        n of each                   account  stranger                     account  stranger"
	row = "%s %-22s %7d  %-16s  %8s  %8s  %s  %8.3f  %8.3f"
)

func (r result) String() string {
	mark, beat, known, stranger := " ", "–", "–", "–"
	if r.tells() {
		mark = "!"
	}
	if r.quantum > 0 {
		beat, known, stranger = r.beat.String(), fmt.Sprintf("%.1f %%", r.known.later()), fmt.Sprintf("%.1f %%", r.stranger.later())
	}
	return fmt.Sprintf(row, mark, r.name, r.n, beat, known, stranger, r.offset, r.known.median(), r.stranger.median())
}
