/*
Timing asks whether the time of an answer tells who has an account.

	go run ./test/timing -resetd bin/resetd [-n 2000] [-only quota,hang] [-rate 1200]

It starts the real binary between stand-ins that take as long as the real services were measured
to: Supabase Auth's generate_link 29 ms for an account and 8 ms for an unknown address, Mailgun
200 ms with a long tail (log-normal; one call in a hundred takes 700 ms or more). It asks for
accounts and unknown addresses in random order, every address once, over connections that each do
the same:

 1. one request for an account or an unknown address, whichever comes,
 2. requests for unknown addresses 5, 20, 50 and 200 ms after that, each once on the same
    connection and once on another, at random one right after the other's answer,
 3. a random pause.

The time of an answer is that from its request to its first byte. What is printed is the AUC: the
chance that an answer to (or after) a request for a random account came later than one to (or
after) a request for a random unknown address, where a tie counts half. 0.5 is no information, 1 is
certainty. The interval after ± is DeLong's for 95 %, the widest of the row. A number with a ! is
one whose interval does not hold 0.5. The last two numbers are medians of the row's first column
in ms, for accounts and for unknown addresses.

All answers of a row must be the same: it fails if their status or body differs.

Some rows are measured in another way:

	one of 40 at once   n/2 bursts of 40 requests, one of them for an account; the answer for the
	                    account is compared with those for the others
	used up, failures   trials: some requests for accounts, or as many for unknown addresses, and
	                    then 25 or 50 for unknown ones, whose answers are compared; two trials,
	                    one of each kind, count as one observation of the interval
	away                the request's own answer only

In one of twenty numbers the interval misses 0.5 by chance. So such a number is measured again with
four times as many requests. The row fails if 0.5 is then outside of the 99.9 % interval (± 0.015
with n = 2000): with 95 % again, chance would fail every third run, of some 200 numbers.

A test that cannot see a leak proves nothing. The last row is measured with a resetd that is built
with -tags start_at_once, whose deliveries begin at once: the next request tells then, or the
measurement is blind and fails. With -old, resetd is a binary of version 1, which looks the account
up before it answers: only the rows are measured that showed it, and they have to tell.

The exit status is 1 if a row fails. A full run takes some 18 minutes on two processors that have
nothing else to do; others' work makes it blind. Settings that are not the default: limits wide
enough to refuse nothing, ADMIN_ADDR=off, UPSTREAM_TIMEOUT=1s and DELIVERY_TIMEOUT=2s (so that what
cannot be delivered ends soon), and MAX_DELIVERIES=1000 (so that all begin when they are due).
*/
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/resetd/resetd/test/measure"
)

type options struct {
	resetd string
	blind  string // a resetd whose deliveries begin at once
	old    bool
	n      int
	rate   int
	only   string
	env    []string
}

func main() {
	if is, err := measure.IsStandIns(os.Args); is {
		fmt.Fprintln(os.Stderr, "timing: stand-ins:", err)
		os.Exit(1)
	}
	var o options
	flag.StringVar(&o.resetd, "resetd", "bin/resetd", "the binary to ask")
	flag.StringVar(&o.blind, "blind", "", "a resetd that was built with -tags start_at_once (default: it is built)")
	flag.BoolVar(&o.old, "old", false, "resetd looks the account up before it answers, as version 1 did: that has to show")
	flag.IntVar(&o.n, "n", 2000, "answers for accounts, and as many for unknown addresses, of each number")
	flag.IntVar(&o.rate, "rate", 1200, "requests per second, about")
	flag.StringVar(&o.only, "only", "", "rows whose name has one of these in it, comma separated")
	flag.Func("set", "a further `NAME=value` for resetd's environment; may be repeated", func(entry string) error {
		o.env = append(o.env, entry)
		return nil
	})
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(1000) // rarely, because it takes a processor from resetd
	passed, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "timing:", err)
	}
	if !passed {
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (passed bool, err error) {
	table := selected(o)
	if o.blind == "" && slices.ContainsFunc(table, func(r row) bool { return r.blind }) {
		dir, err := os.MkdirTemp("", "resetd-timing-")
		if err != nil {
			return false, err
		}
		defer os.RemoveAll(dir)
		if o.blind, err = buildBlind(ctx, dir); err != nil {
			return false, err
		}
	}
	began := time.Now()
	fmt.Printf("Who has an account, by the time of an answer? 0.5: no telling; 1: with certainty (95 %% intervals).\n"+
		"%d accounts and %d unknown addresses a number, in random order.\n", o.n, o.n)
	failed, above := 0, ""
	for _, r := range table {
		if heading := headingOf(r); heading != above {
			fmt.Println(heading)
			above = heading
		}
		ok, err := judge(ctx, o, r)
		if err != nil {
			return false, fmt.Errorf("%s: %w", r.name, err)
		}
		if !ok {
			failed++
		}
	}
	fmt.Printf("\n%d of %d rows failed, in %v.\n", failed, len(table), time.Since(began).Round(time.Second))
	return failed == 0, nil
}

// selected returns the rows that the options ask for.
func selected(o options) (table []row) {
	for _, r := range rows() {
		if o.old {
			if !r.old {
				continue
			}
			r.env, r.warmUp = nil, 1 // it does not know these settings, and is slow
		}
		if slices.ContainsFunc(strings.Split(o.only, ","), func(part string) bool { return strings.Contains(r.name, part) }) {
			table = append(table, r)
		}
	}
	return table
}

// judge measures a row and prints it. Numbers that seem to tell are measured again.
func judge(ctx context.Context, o options, r row) (ok bool, err error) {
	m, err := measureRow(ctx, o, r, r.moments, o.n)
	if err != nil {
		return false, err
	}
	fmt.Println(lineOf(r, m))
	if !m.isUniform() {
		return false, nil
	}
	if r.blind || o.old {
		if slices.ContainsFunc(r.moments, func(at moment) bool { return newAUC(m.times[at]).tells(z999) }) {
			return true, nil
		}
		fmt.Println("  FAILED: this tells who has an account, and was not seen: the measurement is blind.")
		return false, nil
	}
	ok = true
	for _, at := range r.moments {
		if !newAUC(m.times[at]).tells(z95) {
			continue
		}
		m, err := measureRow(ctx, o, r, []moment{at}, 4*o.n)
		if err != nil {
			return false, err
		}
		again := newAUC(m.times[at])
		fmt.Printf("    again, %s: %v\n", at, again)
		if !m.isUniform() {
			ok = false
		} else if again.tells(z999) {
			fmt.Println("  FAILED: this tells who has an account.")
			ok = false
		}
	}
	return ok, nil
}

func measureRow(ctx context.Context, o options, r row, moments []moment, n int) (*measured, error) {
	subjects, stop, err := startAll(ctx, o, r)
	if err != nil {
		return nil, err
	}
	defer stop()
	return r.measure(ctx, subjects, o, r, moments, n)
}

// isUniform says whether all answers are the same. If not, it prints them.
func (m *measured) isUniform() bool {
	if len(m.answers) == 1 {
		return true
	}
	fmt.Println("  FAILED: the answers differ.")
	different := slices.SortedFunc(maps.Keys(m.answers), func(a, b string) int { return m.answers[b] - m.answers[a] })
	for i, what := range different {
		if i == 5 {
			fmt.Printf("          and %d others\n", len(different)-i)
			break
		}
		fmt.Printf("  %7d × %.300s\n", m.answers[what], what)
	}
	return false
}

func (m moment) String() string {
	switch {
	case m == own:
		return "own"
	case m.other:
		return fmt.Sprintf("another connection, %v", m.after)
	default:
		return fmt.Sprintf("the same connection, %v", m.after)
	}
}

const (
	nameColumn   = "%-44s"
	statusColumn = "%-8s"
	cellColumn   = "%-7s"
)

// headingOf returns the two lines above a row.
func headingOf(r row) string {
	var kinds, times strings.Builder
	var last moment
	for i, at := range r.moments {
		kind, when := "own", ""
		if at != own {
			kind, when = "", at.after.String()
			if i == 0 || last == own || last.other != at.other {
				kind = "next"
				if at.other {
					kind = "next, on another connection"
				}
			}
		}
		last = at
		fmt.Fprintf(&times, cellColumn, when)
		// A kind may span the next columns, which have none.
		if kind != "" {
			fmt.Fprintf(&kinds, "%*s", max(0, i*7-kinds.Len()), "")
			kinds.WriteString(kind)
		}
	}
	heading := fmt.Sprintf("\n  "+nameColumn+statusColumn+"%-*s%9s%s", "", "status", 7*len(r.moments), kinds.String(), "", "medians")
	if under := strings.TrimSpace(times.String()); under != "" {
		heading += strings.TrimRight(fmt.Sprintf("\n  "+nameColumn+statusColumn+"%s", "", "", times.String()), " ")
	}
	return heading
}

func lineOf(r row, m *measured) string {
	mark, cells, half := " ", "", 0.0
	for _, at := range r.moments {
		a := newAUC(m.times[at])
		cell := fmt.Sprintf("%.3f", a.value)
		if a.tells(z95) {
			cell, mark = cell+"!", "!"
		}
		cells += fmt.Sprintf(cellColumn, cell)
		half = max(half, a.half())
	}
	accounts, unknown := split(m.times[r.moments[0]])
	return fmt.Sprintf("%s "+nameColumn+statusColumn+"%s± %.3f  %.3f %.3f", mark, r.name, m.statuses(), cells, half, median(accounts), median(unknown))
}

// statusIn finds the statuses in answers, each before a body.
var statusIn = regexp.MustCompile(`\b[1-5][0-9]{2} \{`)

// statuses returns the statuses, as many as fit.
func (m *measured) statuses() string {
	var found []string
	for what := range m.answers {
		for _, status := range statusIn.FindAllString(what, -1) {
			found = append(found, status[:3])
		}
	}
	slices.Sort(found)
	return fmt.Sprintf("%.7s", strings.Join(slices.Compact(found), " "))
}

func median(sorted []time.Duration) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[len(sorted)/2].Microseconds()) / 1000
}
