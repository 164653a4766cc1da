package ratelimit

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window lets Limit requests through in each Period: a second, a minute, an hour or a day.
type Window struct {
	Limit  int64
	Period time.Duration
}

// Rate is a limit made of several windows, shortest first and each period at
// most once. A request must fit into all of them.
type Rate []Window

// units are ulule/limiter's letters for periods, and the names under which
// the windows appear in the RateLimit fields.
var units = []struct {
	letter, name string
	period       time.Duration
}{
	{"S", "second", time.Second},
	{"M", "minute", time.Minute},
	{"H", "hour", time.Hour},
	{"D", "day", 24 * time.Hour},
}

// maxLimit bounds a limit, far above any use and far below the overflow of a counter. The RateLimit fields carry at
// most 15 digits (RFC 8941, section 3.3.1).
const maxLimit = 1_000_000_000

// ParseRate reads limits as ulule/limiter writes them, separated by commas: "5-M,30-H" is five a minute and thirty an
// hour. It reports all faults together, and repeats nothing of the text.
func ParseRate(s string) (Rate, error) {
	var rate Rate
	var faults []error
	for i, part := range strings.Split(s, ",") {
		window, err := parseWindow(strings.TrimSpace(part))
		if err == nil && slices.ContainsFunc(rate, func(w Window) bool { return w.Period == window.Period }) {
			err = fmt.Errorf("there is a limit for each %s already", window.unit())
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("entry %d: %w", i+1, err))
			continue
		}
		rate = append(rate, window)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	slices.SortFunc(rate, func(a, b Window) int { return int(a.Period - b.Period) })
	return rate, nil
}

func parseWindow(s string) (Window, error) {
	count, letter, found := strings.Cut(s, "-")
	if !found {
		return Window{}, errors.New("want a number, a dash and S, M, H or D, such as 5-M for five a minute")
	}
	var faults []string
	limit, err := strconv.ParseInt(count, 10, 64)
	if err != nil || limit < 1 || limit > maxLimit {
		faults = append(faults, fmt.Sprintf("the number must be a whole one from 1 to %d", maxLimit))
	}
	var period time.Duration
	for _, unit := range units {
		if strings.EqualFold(letter, unit.letter) {
			period = unit.period
		}
	}
	if period == 0 {
		faults = append(faults, "the unit must be S, M, H or D (second, minute, hour, day)")
	}
	if len(faults) > 0 {
		return Window{}, errors.New(strings.Join(faults, "; "))
	}
	return Window{Limit: limit, Period: period}, nil
}

// String writes the rate as ParseRate reads it, shortest window first.
func (r Rate) String() string {
	parts := make([]string, len(r))
	for i, w := range r {
		parts[i] = strconv.FormatInt(w.Limit, 10) + "-" + w.letter()
	}
	return strings.Join(parts, ",")
}

// policy returns the value of the RateLimit-Policy header field.
func (r Rate) policy() string {
	policies := make([]string, len(r))
	for i, w := range r {
		policies[i] = fmt.Sprintf(`"per-%s";q=%d;w=%d`, w.unit(), w.Limit, w.Period/time.Second)
	}
	return strings.Join(policies, ", ")
}

// MarshalText implements encoding.TextMarshaler, so that logs carry a rate as it is set.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, as [ParseRate] does.
func (r *Rate) UnmarshalText(text []byte) error {
	rate, err := ParseRate(string(text))
	if err == nil {
		*r = rate
	}
	return err
}

func (w Window) letter() string {
	for _, unit := range units {
		if unit.period == w.Period {
			return unit.letter
		}
	}
	return w.Period.String()
}

func (w Window) unit() string {
	for _, unit := range units {
		if unit.period == w.Period {
			return unit.name
		}
	}
	return w.Period.String()
}

// open returns the time for which a window stays open: its period without a millisecond, the resolution of Redis.
// Memory and Redis both count the last instant as inside, but "wait 60 seconds" has to mean that after 60 seconds the
// window is over.
func (w Window) open() time.Duration { return w.Period - time.Millisecond }
