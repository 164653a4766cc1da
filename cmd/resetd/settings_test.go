package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGoneSettings: a setting of an earlier version stops the start, however it is set, and says what
// took its place. What it was set to is not repeated.
func TestGoneSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("value-of-old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, instead := range map[string]string{
		"RESPONSE_QUANTUM": "answers wait for nothing",
		"MAIL_DECOY":       "MAIL_PROBE",
		"MAIL_DECOY_LIMIT": "MAIL_PROBE",
		"MAX_IN_FLIGHT":    "MAX_ACCEPTED",
	} {
		flag := "--" + strings.ReplaceAll(strings.ToLower(name), "_", "-")
		for how, c := range map[string]struct{ args, environ []string }{
			"variable":        {nil, []string{name + "=value-of-old"}},
			"flag":            {[]string{flag + "=value-of-old"}, nil},
			"flag, two words": {[]string{flag, "value-of-old"}, nil},
			"file":            {nil, []string{name + "_FILE=" + file}},
			"absent file":     {nil, []string{name + "_FILE=/value-of-old"}},
		} {
			_, err := readSettings("serve", c.args, c.environ, io.Discard)
			if err == nil {
				t.Errorf("%s as a %s is ignored", name, how)
				continue
			}
			if said := err.Error(); strings.Count(said, name+": ") != 1 || !strings.Contains(said, name+": does not exist any more: ") ||
				!strings.Contains(said, instead) || strings.Contains(said, "value-of-old") {
				t.Errorf("%s as a %s: %v", name, how, err)
			}
			if status := exitStatus(err, io.Discard); status != 2 {
				t.Errorf("%s as a %s: exit status %d, want 2", name, how, status)
			}
		}
		// Set to nothing, as in a file that lists all of them, it is not set.
		if _, err := readSettings("serve", nil, []string{name + "="}, io.Discard); err != nil {
			t.Errorf("%s, empty: %v", name, err)
		}
	}
}

// TestNewSettings: what each of them accepts, and by default is.
func TestNewSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		want        string // of the mistake; empty: there is none
	}{
		{"MAIL_PROBE", "testmode", ""},
		{"MAIL_PROBE", "off", ""},
		{"MAIL_PROBE", "on", "must be one of testmode, off"},
		{"MAX_ACCEPTED", "1", ""},
		{"MAX_ACCEPTED", "1000000", ""},
		{"MAX_ACCEPTED", "1000001", "must be from 1 to 1000000"},
		{"MAX_ACCEPTED", "0", "must be from 1 to 1000000"},
		{"MAX_ACCEPTED", "-1", "must be from 1 to 1000000"},
		{"MAX_ACCEPTED", "many", "must be a whole number"},
		{"MAX_DELIVERIES", "1", ""},
		{"MAX_DELIVERIES", "1000", ""},
		{"MAX_DELIVERIES", "0", "must be from 1 to 1000"},
		{"MAX_DELIVERIES", "1001", "must be from 1 to 1000"},
		{"DELIVERY_TIMEOUT", "1s", ""},
		{"DELIVERY_TIMEOUT", "30m", ""}, // half of the default of LINK_EXPIRES_IN
		{"DELIVERY_TIMEOUT", "30m1s", "must be from 1s to half of LINK_EXPIRES_IN"},
		{"DELIVERY_TIMEOUT", "999ms", "must be from 1s to half of LINK_EXPIRES_IN"},
		{"DELIVERY_TIMEOUT", "-1m", "must be from 1s to half of LINK_EXPIRES_IN"},
		{"DELIVERY_TIMEOUT", "15", "must be a duration, like 500ms or 1h"},
	} {
		_, err := readSettings("serve", nil, []string{c.name + "=" + c.value}, io.Discard)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), "  "+c.name+": "+c.want) {
			t.Errorf("%s=%s: %v, want %q", c.name, c.value, err, c.want)
		}
	}
	defaults, err := readSettings("serve", nil, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if defaults.MailProbe != "testmode" || defaults.MaxAccepted != 10_000 || defaults.MaxDeliveries != 8 {
		t.Errorf("by default MAIL_PROBE is %s, MAX_ACCEPTED %d, MAX_DELIVERIES %d", defaults.MailProbe, defaults.MaxAccepted, defaults.MaxDeliveries)
	}
}

// TestDeliveryTimeout: a mail is tried for a quarter of an hour, but not for longer than half of the
// time that its link works, unless the operator sets it.
func TestDeliveryTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		linkExpiresIn, deliveryTimeout string
		want                           time.Duration // 0: it is a mistake
	}{
		{"", "", 15 * time.Minute},
		{"1h", "", 15 * time.Minute},
		{"24h", "", 15 * time.Minute},
		{"30m", "", 15 * time.Minute},
		{"29m", "", 14*time.Minute + 30*time.Second},
		{"5m", "", 150 * time.Second},
		{"1m", "", 30 * time.Second},
		{"24h", "12h", 12 * time.Hour},
		{"24h", "12h1s", 0},
		{"10m", "5m", 5 * time.Minute},
		{"10m", "15m", 0},
	} {
		s, err := readSettings("serve", nil, []string{"LINK_EXPIRES_IN=" + c.linkExpiresIn, "DELIVERY_TIMEOUT=" + c.deliveryTimeout}, io.Discard)
		switch {
		case (err == nil) != (c.want > 0):
			t.Errorf("LINK_EXPIRES_IN=%s DELIVERY_TIMEOUT=%s: %v", c.linkExpiresIn, c.deliveryTimeout, err)
		case err == nil && s.DeliveryTimeout != c.want:
			t.Errorf("LINK_EXPIRES_IN=%s DELIVERY_TIMEOUT=%s: %v, want %v", c.linkExpiresIn, c.deliveryTimeout, s.DeliveryTimeout, c.want)
		}
	}
	// What follows from a first mistake is no news.
	for _, expiry := range []string{"nonsense", "1s", "-1h"} {
		if _, err := readSettings("serve", nil, []string{"LINK_EXPIRES_IN=" + expiry}, io.Discard); err == nil || strings.Contains(err.Error(), "DELIVERY_TIMEOUT: ") {
			t.Errorf("LINK_EXPIRES_IN=%s, and DELIVERY_TIMEOUT is not set: %v", expiry, err)
		}
	}
}
