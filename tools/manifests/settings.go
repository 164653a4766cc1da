package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// secretSettings must not be readable in a manifest, an environment or `docker inspect`.
var secretSettings = []string{
	"SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_SECRET_KEY", "MAILGUN_API_KEY", "MAILGUN_WEBHOOK_SIGNING_KEY", "REDIS_URL", "REDIS_CLIENT_KEY",
	"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
}

// program is resetd, which knows its settings best.
type program struct{ path string }

// settings are the names that resetd knows, and their defaults. A name that ends in _ stands for
// all that begin with it.
type settings map[string]string

var settingLine = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)(…)?(?: \((.+)\))?$`)

func (p program) settings(ctx context.Context) (settings, error) {
	var help bytes.Buffer
	command := exec.CommandContext(ctx, p.path, "serve", "--help") //nolint:gosec // the caller's program
	command.Env, command.Stdout, command.Stderr = []string{}, &help, &help
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s serve --help: %w", p.path, err)
	}
	known := settings{}
	for _, line := range settingLine.FindAllStringSubmatch(help.String(), -1) {
		known[line[1]] = line[3]
	}
	if known["LISTEN_ADDR"] != ":8080" || len(known) < 20 {
		return nil, fmt.Errorf("%s serve --help lists no settings: %s", p.path, help.String())
	}
	return known, nil
}

var versionLine = regexp.MustCompile(`^resetd ([0-9]+\.[0-9]+\.[0-9]+) `)

// version is the one that resetd says it is.
func (p program) version(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, p.path, "version").Output() //nolint:gosec // the caller's program
	if err != nil {
		return "", fmt.Errorf("%s version: %w", p.path, err)
	}
	said := versionLine.FindSubmatch(output)
	if said == nil {
		return "", fmt.Errorf("%s version says no version: %q", p.path, output)
	}
	return string(said[1]), nil
}

// has says whether resetd reads a variable, as it is or as the name of a file.
func (s settings) has(variable string) bool {
	for _, name := range []string{variable, strings.TrimSuffix(variable, "_FILE")} {
		if _, known := s[name]; known {
			return true
		}
	}
	for name := range s {
		if strings.HasSuffix(name, "_") && strings.HasPrefix(variable, name) {
			return true
		}
	}
	return false
}

// memoryLimit is the variable by which Go's runtime is told how much memory to use. It is no setting
// of resetd's.
const memoryLimit = "GOMEMLIMIT"

// checkMemory: without a limit of its own the heap grows to three times what lives in it, and the
// container is killed with all that it has accepted.
func checkMemory(f *findings, where string, environment map[string]string, container int64) {
	mebibytes, err := strconv.ParseInt(strings.TrimSuffix(environment[memoryLimit], "MiB"), 10, 32)
	limit := mebibytes << 20
	f.want(err == nil && strings.HasSuffix(environment[memoryLimit], "MiB"), "%s: %s is %q, want some MiB", where, memoryLimit, environment[memoryLimit])
	// A fifth is for what the runtime does not count: the program itself, and what the kernel holds.
	f.want(limit > 0 && limit <= container/5*4, "%s: %s is %d bytes, want some, and four fifths of the container's %d at most", where, memoryLimit, limit, container)
}

// judge has resetd read the settings and say what is wrong. What is in files is not there to
// read, and is left out.
func (p program) judge(ctx context.Context, f *findings, where string, environment map[string]string) {
	var environ []string
	for name, value := range environment {
		if !strings.HasSuffix(name, "_FILE") {
			environ = append(environ, name+"="+value)
		}
	}
	// healthcheck reads the settings as serve does, and then asks a port where nobody listens:
	// status 1. Wrong settings are status 2.
	command := exec.CommandContext(ctx, p.path, "healthcheck") //nolint:gosec // the caller's program
	command.Env = append(environ, "LISTEN_ADDR=127.0.0.1:1")
	output, err := command.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		f.want(false, "%s: something answers on 127.0.0.1:1", where)
	case !errors.As(err, &exit):
		f.want(false, "%s: %v", where, err)
	default:
		f.want(exit.ExitCode() == 1, "%s: %s", where, bytes.TrimSpace(output))
	}
}

// checkEnvironment judges names, and that no secret is among the values.
func checkEnvironment(f *findings, where string, environment map[string]string, known settings) {
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		f.want(known.has(name) || name == memoryLimit, "%s: %s is no setting of resetd", where, name)
		f.want(!slices.Contains(secretSettings, name), "%s: %s is a secret: give %s_FILE", where, name, name)
	}
	for _, name := range []string{"SITE_URL", "SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY_FILE", "MAILGUN_DOMAIN", "MAILGUN_API_KEY_FILE", "REDIS_URL_FILE", "TRUSTED_PROXIES"} {
		f.want(environment[name] != "", "%s: %s is missing", where, name)
	}
}

// spare is what a stop may take beyond SHUTDOWN_DELAY and SHUTDOWN_TIMEOUT before it is cut off.
const spare = 5 * time.Second

// checkGrace: what waits for the process must wait longer than the process does.
func checkGrace(f *findings, where string, grace time.Duration, environment map[string]string, known settings) {
	need := spare
	for _, name := range []string{"SHUTDOWN_DELAY", "SHUTDOWN_TIMEOUT"} {
		value, set := environment[name]
		if !set {
			value = known[name]
		}
		d, err := time.ParseDuration(value)
		f.want(err == nil, "%s: %s: %v", where, name, err)
		need += d
	}
	f.want(grace >= need, "%s: a stop is cut off after %v; SHUTDOWN_DELAY, SHUTDOWN_TIMEOUT and %v to spare are %v", where, grace, spare, need)
}

// port is the port of LISTEN_ADDR or ADMIN_ADDR, as set or by default.
func port(environment map[string]string, known settings, name string) string {
	address, set := environment[name]
	if !set {
		address = known[name]
	}
	return address[strings.LastIndex(address, ":")+1:]
}

var pinned = regexp.MustCompile(`^[^:@]+:[^:@]*[0-9]+\.[0-9]+\.[0-9]+[^:@]*(@sha256:[0-9a-f]{64})?$`)

// checkImage: a tag that moves is not what was tested.
func checkImage(f *findings, where, image string, ours bool) {
	f.want(pinned.MatchString(image), "%s: the image %q is not of one version", where, image)
	f.want(ours || strings.Contains(image, "@sha256:"), "%s: the image %q, which is not ours, has no digest", where, image)
}

// checkVersion: the files that are released with a version are for that version.
func checkVersion(f *findings, where, image, version string) {
	name, _, _ := strings.Cut(image, "@")
	f.want(strings.HasSuffix(name, ":"+version), "%s: the image of resetd is %q, and this is version %s", where, image, version)
}

// commonCommand is what of a command must be the same wherever Redis is started; where the secret is
// mounted is not.
func commonCommand(command []string) string {
	var words []string
	for _, word := range command {
		if strings.HasPrefix(word, "/") {
			word = filepath.Base(word)
		}
		words = append(words, word)
	}
	return strings.Join(words, "|")
}

// checkRedis: it is Redis alone that runs, and it refuses before it is killed.
func checkRedis(f *findings, where string, d *deployment) {
	f.want(len(d.redisEntrypoint) > 0 && d.redisEntrypoint[0] == "redis-server", "%s: redis is started by the image's entrypoint, which loads modules", where)
	f.want(argument(d.redisCommand, "--maxmemory-policy") == "noeviction", "%s: redis forgets limits when its memory is full", where)
	most, err := redisBytes(argument(d.redisCommand, "--maxmemory"))
	f.want(err == nil, "%s: --maxmemory of redis: %v", where, err)
	// A quarter is for what maxmemory does not count: connections' buffers, and fragments.
	f.want(most > 0 && most <= d.redisMemory/4*3, "%s: maxmemory of redis is %d bytes, want some, and three quarters of its limit of %d at most", where, most, d.redisMemory)
}

// argument is the word behind a name.
func argument(command []string, name string) string {
	if i := slices.Index(command, name); i >= 0 && i+1 < len(command) {
		return command[i+1]
	}
	return ""
}

// redisBytes reads a size as Redis does: 1mb is 1024 times 1kb, 1m is 1000 times 1k.
func redisBytes(size string) (int64, error) {
	number := strings.TrimRight(size, "bgkm")
	unit, known := map[string]int64{"": 1, "b": 1, "k": 1e3, "kb": 1 << 10, "m": 1e6, "mb": 1 << 20, "g": 1e9, "gb": 1 << 30}[size[len(number):]]
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !known {
		return 0, fmt.Errorf("%q is no size", size)
	}
	return n * unit, nil
}

// imageUser is what the Dockerfile beside deploy/ runs as.
func imageUser(deploy string) string {
	content, err := os.ReadFile(filepath.Join(deploy, "..", "Dockerfile"))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(content)) {
		if user, found := strings.CutPrefix(line, "USER "); found {
			return strings.TrimSpace(user)
		}
	}
	return ""
}
