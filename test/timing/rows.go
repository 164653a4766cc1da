package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/resetd/resetd/test/measure"
)

// row is a line of the table: circumstances, and how they are measured.
type row struct {
	name     string
	standIns measure.Upstreams
	env      []string // of resetd, beyond what all rows have
	subjects int      // resetds at the same time, each with its own stand-ins; 0: one
	warmUp   int      // requests to each resetd before the timed ones
	moments  []moment
	measure  func(ctx context.Context, subjects []*subject, o options, r row, moments []moment, n int) (*measured, error)
	sequence sequence // where sequences measures
	blind    bool     // uses the build whose deliveries begin at once, and must show a difference
	old      bool     // must show a difference with a resetd that looks the account up before it answers
}

// usual describes the upstreams without a fault. Mailgun's distribution is assumed, with a 99th percentile of
// 700 ms (2.33 standard deviations, e^(2.33 σ) = 3.5).
var usual = measure.Upstreams{
	AccountTakes: measure.AccountTakes, UnknownTakes: measure.UnknownTakes, LookupSigma: 0.1,
	MailTakes: measure.MailTakes, MailSigma: 0.54,
}

// own is the moment of the first request.
var own = moment{}

// These are the moments of most rows, and of rows that would find the end of a lookup whose delivery begins at
// once: an account's takes 29 ms, and the request needs half a millisecond to get there.
var (
	usualMoments = slices.Concat([]moment{own},
		after(false, 5*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond),
		after(true, 5*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond))
	atEndOfLookup = slices.Concat([]moment{own}, after(false, measure.AccountTakes, measure.AccountTakes+500*time.Microsecond, measure.AccountTakes+time.Millisecond))
)

func after(other bool, times ...time.Duration) (moments []moment) {
	for _, t := range times {
		moments = append(moments, moment{t, other})
	}
	return moments
}

// rows returns the table.
func rows() (table []row) {
	add := func(name string, change func(*row)) {
		r := row{name: name, standIns: usual, moments: usualMoments, measure: chains, warmUp: 50}
		change(&r)
		table = append(table, r)
	}

	add("no fault", func(*row) {})
	for _, fault := range []string{"500", "401", "404", "reset", "hang", "drip"} {
		add("Supabase "+fault+", accounts only", func(r *row) { r.standIns.AccountFault = fault })
	}
	for _, fault := range []string{"400", "401", "429", "500", "reset", "hang"} {
		add("Mailgun "+fault+", accounts only", func(r *row) { r.standIns.MailFault = fault })
	}
	for _, fault := range []string{"404", "500"} { // the probe gets it too, so all are refused
		add("Supabase "+fault+", unknown only", func(r *row) { r.standIns.UnknownFault = fault })
	}
	add("passwords are checked beside", func(r *row) { r.standIns.Passwords = true })
	add("Supabase has one slot", func(r *row) {
		r.standIns.Slots = 1
		r.env = []string{"MAX_DELIVERIES=8"}
		r.subjects = 12 // one slot makes a hundred lookups a second
	})

	add("one of 40 at once", func(r *row) {
		// Supabase Auth has its default pool, on two processors. Mailgun is set so that the answers of the old
		// resetd came half a second later if something was looked up a tenth of a second later.
		r.standIns.Sessions, r.standIns.Slots = 10, 2
		r.standIns.MailTakes, r.standIns.MailSigma = 220*time.Millisecond, 0.1
		r.env = []string{"MAX_DELIVERIES=8"}
		r.moments, r.measure, r.subjects, r.old = []moment{own}, bursts, 3, true
	})
	add("lookups of 155 and 136 ms, mails of 220 ms", func(r *row) {
		r.standIns.AccountTakes, r.standIns.UnknownTakes, r.standIns.LookupSigma = 155*time.Millisecond, 136*time.Millisecond, 0.005
		r.standIns.MailTakes, r.standIns.MailSigma = 220*time.Millisecond, 0.02
		r.moments, r.old = []moment{own}, true
	})
	for away := time.Duration(0); away <= 300*time.Millisecond; away += 10 * time.Millisecond {
		add(fmt.Sprintf("Supabase is %v away", away), func(r *row) {
			r.standIns.Away = away
			r.moments = []moment{own}
		})
	}

	trials := func(name string, q sequence, change func(*row)) {
		add(name, func(r *row) {
			r.moments, r.measure, r.subjects, r.sequence = after(false, q.wait), sequences, 20, q
			change(r)
		})
	}
	trials("Mailgun's quota is used up", sequence{
		first: 20, wait: 1500 * time.Millisecond, next: 25, every: 40 * time.Millisecond, length: 3 * time.Second, restart: true,
	}, func(r *row) {
		r.standIns.Quota = 10
		r.env = []string{"DELIVERY_TIMEOUT=1s"} // refused mails have ended before the next trial
	})
	trials("MAX_ACCEPTED is used up", sequence{
		first: 20, wait: 1500 * time.Millisecond, next: 50, every: 120 * time.Millisecond, length: 10500 * time.Millisecond,
	}, func(r *row) {
		r.standIns.MailFault = "hang" // so that deliveries for accounts take long
		r.env = []string{"MAX_ACCEPTED=20", "UPSTREAM_TIMEOUT=5s", "DELIVERY_TIMEOUT=1m"}
		r.warmUp = 0
	})
	trials("after failures of accounts", sequence{
		first: 5, wait: 50 * time.Millisecond, next: 25, every: 100 * time.Millisecond, length: 3 * time.Second,
	}, func(r *row) { r.standIns.AccountFault = "500" })

	for _, blind := range []bool{false, true} {
		name := "when a lookup would end"
		if blind {
			name = "when a lookup ends (start_at_once)"
		}
		add(name, func(r *row) {
			r.standIns.LookupSigma = 0
			r.moments, r.blind = atEndOfLookup, blind
		})
	}
	return table
}
