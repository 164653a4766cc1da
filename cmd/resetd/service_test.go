package main

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/setting"
)

const (
	serviceUnit = "../../deploy/systemd/resetd.service"
	serviceEnv  = "../../deploy/systemd/resetd.env"
)

var updateServiceEnv = flag.Bool("update", false, "write deploy/systemd/resetd.env")

// serviceEnvHead is the head of the packages' file of settings. It says what is true of every setting.
const serviceEnvHead = `# The settings of resetd.service, which are read at its start:
#
#   systemctl start resetd-check            tries them with Supabase, Mailgun and Redis;
#   journalctl -u resetd-check -o cat       what is wrong, and what to do about it
#   systemctl enable --now resetd           the first time
#   systemctl restart resetd                after a change
#   journalctl -u resetd                    what it says
#
# Nothing is set yet. resetd needs SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY, MAILGUN_API_KEY,
# MAILGUN_DOMAIN and SITE_URL. The value after a # is the default, if there is one.
#
# A setting is one line, NAME=VALUE, without spaces around the = and without a comment after it.
# systemd removes quotes around a value ('Example <no-reply@example.com>'), and replaces no variables
# in it; docker run --env-file reads the same lines, but keeps the quotes.
#
# Put each key into its own file in /etc/resetd/secrets that only root can read. systemd passes the
# keys to resetd, and to nobody else, under /run/credentials. For example
#
#   install -m 0600 /dev/stdin /etc/resetd/secrets/MAILGUN_API_KEY
#
# waits for the key: paste it, then Enter and Ctrl-D. Then remove the # from MAILGUN_API_KEY_FILE below.
#
# Ports below 1024, a Redis behind a unix socket that a group may use, longer stops:
# https://github.com/resetd/resetd/blob/main/docs/install.md
`

// TestSettingsServiceEnv: the packages' file of settings has every setting, commented out, with its help and
// its default.
func TestSettingsServiceEnv(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	want.WriteString(serviceEnvHead)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		name := field.Tag.Get("env")
		if name == "" {
			continue
		}
		line := name + "=" + field.Tag.Get("envDefault")
		if field.Type == reflect.TypeFor[Secret]() {
			line = name + "_FILE=/run/credentials/resetd.service/secrets_" + name
		}
		fmt.Fprintf(&want, "\n# %s\n#%s\n", field.Tag.Get("help"), line)
	}
	want.WriteString("\n# OpenTelemetry's standard variables: this one turns tracing on (OTLP over HTTP)\n#OTEL_EXPORTER_OTLP_ENDPOINT=\n")
	if *updateServiceEnv {
		if err := os.WriteFile(serviceEnv, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, serviceEnv) != want.String() {
		t.Errorf("deploy/systemd/resetd.env, the file of settings in the packages, is not what settings.go says. This writes it:\n\tgo test -run %s ./cmd/resetd -update", t.Name())
	}
}

// TestServiceUnit: the unit gives a stop enough time, and does not restart after wrong settings.
func TestServiceUnit(t *testing.T) {
	t.Parallel()
	unit := read(t, serviceUnit)
	value := func(name string) string {
		t.Helper()
		found := regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(unit, -1)
		if len(found) != 1 {
			t.Fatalf("%s is in the unit %d times", name, len(found))
		}
		return found[0][1]
	}
	var longest time.Duration
	for _, name := range []string{"ShutdownDelay", "ShutdownTimeout"} {
		field, ok := reflect.TypeFor[settings]().FieldByName(name)
		if !ok {
			t.Fatalf("there is no setting %s", name)
		}
		longest += parseDuration(t, field.Tag.Get("envDefault"))
	}
	if stop := parseDuration(t, value("TimeoutStopSec")); stop < longest+3*time.Second {
		t.Errorf("systemd kills %v after the SIGTERM, and a stop takes %v by default", stop, longest)
	}
	if got, want := value("RestartPreventExitStatus"), fmt.Sprint(exitStatus(setting.Mistakes{{}}, t.Output())); got != want {
		t.Errorf("the unit does not restart after status %s, but wrong settings end with %s", got, want)
	}
	if got := value("ExecStart"); got != "/usr/bin/resetd serve" {
		t.Errorf("the unit starts %q", got)
	}
}

func parseDuration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
