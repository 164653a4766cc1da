package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGoneSettings: a setting of an earlier version stops the start, however it is set. The message says what
// took its place, and does not repeat the value.
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
			"variable":        {environ: []string{name + "=value-of-old"}},
			"flag":            {args: []string{flag + "=value-of-old"}},
			"flag, two words": {args: []string{flag, "value-of-old"}},
			"file":            {environ: []string{name + "_FILE=" + file}},
			"absent file":     {environ: []string{name + "_FILE=/value-of-old"}},
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
		// An empty value, as in a file that lists all settings, counts as not set.
		if _, err := readSettings("serve", nil, []string{name + "="}, io.Discard); err != nil {
			t.Errorf("%s, empty: %v", name, err)
		}
	}
}

// TestNewSettings: each setting accepts these values, and has this default.
func TestNewSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value string
		want        string // of the mistake; empty: there is none
	}{
		{name: "MAIL_PROBE", value: "testmode", want: ""},
		{name: "MAIL_PROBE", value: "off", want: ""},
		{name: "MAIL_PROBE", value: "on", want: "must be one of testmode, off"},
		{name: "MAX_ACCEPTED", value: "1", want: ""},
		{name: "MAX_ACCEPTED", value: "1000000", want: ""},
		{name: "MAX_ACCEPTED", value: "1000001", want: "must be from 1 to 1000000"},
		{name: "MAX_ACCEPTED", value: "0", want: "must be from 1 to 1000000"},
		{name: "MAX_ACCEPTED", value: "-1", want: "must be from 1 to 1000000"},
		{name: "MAX_ACCEPTED", value: "many", want: "must be a whole number"},
		{name: "MAX_DELIVERIES", value: "1", want: ""},
		{name: "MAX_DELIVERIES", value: "1000", want: ""},
		{name: "MAX_DELIVERIES", value: "0", want: "must be from 1 to 1000"},
		{name: "MAX_DELIVERIES", value: "1001", want: "must be from 1 to 1000"},
		{name: "DELIVERY_TIMEOUT", value: "1s", want: ""},
		{name: "DELIVERY_TIMEOUT", value: "30m", want: ""}, // half of the default of LINK_EXPIRES_IN
		{name: "DELIVERY_TIMEOUT", value: "30m1s", want: "must be from 1s to half of LINK_EXPIRES_IN"},
		{name: "DELIVERY_TIMEOUT", value: "999ms", want: "must be from 1s to half of LINK_EXPIRES_IN"},
		{name: "DELIVERY_TIMEOUT", value: "-1m", want: "must be from 1s to half of LINK_EXPIRES_IN"},
		{name: "DELIVERY_TIMEOUT", value: "15", want: "must be a duration, like 500ms or 1h"},
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

// TestDeliveryTimeout: by default a mail is tried for a quarter of an hour, but not for longer than half of
// LINK_EXPIRES_IN.
func TestDeliveryTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		linkExpiresIn, deliveryTimeout string
		want                           time.Duration // 0: it is a mistake
	}{
		{linkExpiresIn: "", deliveryTimeout: "", want: 15 * time.Minute},
		{linkExpiresIn: "1h", deliveryTimeout: "", want: 15 * time.Minute},
		{linkExpiresIn: "24h", deliveryTimeout: "", want: 15 * time.Minute},
		{linkExpiresIn: "30m", deliveryTimeout: "", want: 15 * time.Minute},
		{linkExpiresIn: "29m", deliveryTimeout: "", want: 14*time.Minute + 30*time.Second},
		{linkExpiresIn: "5m", deliveryTimeout: "", want: 150 * time.Second},
		{linkExpiresIn: "1m", deliveryTimeout: "", want: 30 * time.Second},
		{linkExpiresIn: "24h", deliveryTimeout: "12h", want: 12 * time.Hour},
		{linkExpiresIn: "24h", deliveryTimeout: "12h1s", want: 0},
		{linkExpiresIn: "10m", deliveryTimeout: "5m", want: 5 * time.Minute},
		{linkExpiresIn: "10m", deliveryTimeout: "15m", want: 0},
	} {
		s, err := readSettings("serve", nil, []string{"LINK_EXPIRES_IN=" + c.linkExpiresIn, "DELIVERY_TIMEOUT=" + c.deliveryTimeout}, io.Discard)
		switch {
		case (err == nil) != (c.want > 0):
			t.Errorf("LINK_EXPIRES_IN=%s DELIVERY_TIMEOUT=%s: %v", c.linkExpiresIn, c.deliveryTimeout, err)
		case err == nil && s.DeliveryTimeout != c.want:
			t.Errorf("LINK_EXPIRES_IN=%s DELIVERY_TIMEOUT=%s: %v, want %v", c.linkExpiresIn, c.deliveryTimeout, s.DeliveryTimeout, c.want)
		}
	}
	// A mistake in LINK_EXPIRES_IN causes no second message about DELIVERY_TIMEOUT.
	for _, expiry := range []string{"nonsense", "1s", "-1h"} {
		if _, err := readSettings("serve", nil, []string{"LINK_EXPIRES_IN=" + expiry}, io.Discard); err == nil || strings.Contains(err.Error(), "DELIVERY_TIMEOUT: ") {
			t.Errorf("LINK_EXPIRES_IN=%s, and DELIVERY_TIMEOUT is not set: %v", expiry, err)
		}
	}
}
