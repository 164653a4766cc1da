package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRate(t *testing.T) {
	for in, want := range map[string]Rate{
		"5-M":                    {{5, time.Minute}},
		"5-M,30-H":               {{5, time.Minute}, {30, time.Hour}},
		" 30-h , 5-m ":           {{5, time.Minute}, {30, time.Hour}},
		"4-D,3-H,2-M,1-S":        {{1, time.Second}, {2, time.Minute}, {3, time.Hour}, {4, 24 * time.Hour}},
		"1000000000-S":           {{1_000_000_000, time.Second}},
		"05-M":                   {{5, time.Minute}},
		"1-S,9223372-D,600-H":    {{1, time.Second}, {600, time.Hour}, {9223372, 24 * time.Hour}},
		"\t1-S\n":                {{1, time.Second}},
		"1-M,2-H":                {{1, time.Minute}, {2, time.Hour}},
		"100-D,1-M":              {{1, time.Minute}, {100, 24 * time.Hour}},
		"7-H":                    {{7, time.Hour}},
		"1-d":                    {{1, 24 * time.Hour}},
		"600-H,1-S":              {{1, time.Second}, {600, time.Hour}},
		"+5-M":                   {{5, time.Minute}},
		"5-M,6-S":                {{6, time.Second}, {5, time.Minute}},
		"0000000000000000001-M ": {{1, time.Minute}},
	} {
		got, err := ParseRate(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
		var again Rate
		text, _ := got.MarshalText()
		if err := again.UnmarshalText(text); err != nil || !cmp.Equal(got, again) {
			t.Errorf("%q, written as %q, is read as %v, %v", in, text, again, err)
		}
	}
	if got := mustRate(t, "30-h,5-m").String(); got != "5-M,30-H" {
		t.Errorf("written as %q", got)
	}
}

func TestParseRateFaults(t *testing.T) {
	const number, unit, form = "the number must be a whole one from 1 to", "the unit must be S, M, H or D", "want a number, a dash"
	for in, want := range map[string][]string{
		"":                       {`entry 1: ` + form},
		"5":                      {`entry 1: ` + form},
		"5-M,":                   {`entry 2: ` + form},
		"0-M":                    {`entry 1: ` + number},
		"-5-M":                   {`entry 1: ` + number},
		"5--M":                   {unit},
		"5.5-M":                  {number},
		"1000000001-M":           {number},
		"99999999999999999999-M": {number},
		"5-W":                    {`entry 1: ` + unit},
		"5-":                     {unit},
		"5 - M":                  {number, unit},
		"x-y":                    {number, unit},
		"5-M,6-M":                {`entry 2: there is a limit for each minute already`},
		"0-M,5-X,7":              {`entry 1: ` + number, `entry 2: ` + unit, `entry 3: ` + form},
		"5-M;30-H":               {unit},
	} {
		rate := Rate{{1, time.Second}}
		err := rate.UnmarshalText([]byte(in))
		if err == nil {
			t.Errorf("%q: no error", in)
			continue
		}
		for _, want := range want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %q does not say %q", in, err, want)
			}
		}
		if got := len(strings.Split(err.Error(), "\n")); strings.Count(in, ",")+1 < got {
			t.Errorf("%q: %d faults: %v", in, got, err)
		}
		if rate.String() != "1-S" {
			t.Errorf("%q: the rate was changed to %v", in, rate)
		}
	}
}
