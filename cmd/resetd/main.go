/*
Resetd sends the password-reset mail of a Supabase Auth project through Mailgun, and answers
its callers without a word about who has an account.

	resetd serve     answer POST /api/auth/send-password-reset
	resetd dev       the same server with an inbox in the place of Mailgun, and a stand-in for Supabase
	resetd check     try the settings on Supabase, Mailgun and Redis, and say what is wrong
	resetd healthcheck
	                 ask the instance beside it whether it answers, for images without a shell
	resetd templates DIR
	                 write the built-in templates of the mail into a folder, to change them
	resetd version   print the version

Everything is set by environment variables, files (X_FILE) or flags; `resetd serve --help`
lists them. What is wrong stops the start, all of it named at once. What is missing of
Supabase, Mailgun and SITE_URL does not, unless STRICT_START is on: the server starts, says so, is
not ready, and answers 500 or 502 until it is restarted with it.

serve listens on LISTEN_ADDR: the operation, /healthz, /readyz, /api/openapi.json and /api/docs. ADMIN_ADDR
has /livez, /readyz with the reason, and /metrics, and belongs on no public network. On the first SIGTERM, SIGHUP or
interrupt /readyz says no, requests are still taken for SHUTDOWN_DELAY, and what is accepted and
not delivered then has SHUTDOWN_TIMEOUT to be delivered; a second interrupt ends it.

The exit status is 0 after a clean stop, or a check without a failure; 1 if the server, or a
check, has failed, or accepted requests were left at the stop; and 2 if it was started in a wrong
way.
*/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/resetd/resetd/impl/setting"
)

// The linker sets these in a release: -ldflags "-X main.version=1.2.3 -X main.commit=0123456789ab".
var (
	version = "0.3.0"
	commit  = ""
)

func main() {
	stops := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		stops = append(stops, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), stops...)
	// A second interrupt ends the process at once. A second SIGTERM does not, because Heroku sends several, and
	// accepted requests would be lost (devcenter.heroku.com/articles/dyno-shutdown-behavior, November 2026).
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt) })
	status := exitStatus(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr), os.Stderr)
	stop()
	os.Exit(status)
}

// errUsage ends a start with wrong arguments, after an explanation was printed.
var errUsage = errors.New("usage")

const usage = `Usage: resetd <command> [flags]

  serve        answer POST /api/auth/send-password-reset
  dev          the same server with an inbox in the place of Mailgun, to try it
  check        try the settings on Supabase, Mailgun and Redis, and say what is wrong
  healthcheck  ask the instance beside it whether it answers
  templates    write the built-in templates of the mail into a folder, to change them
  version      print the version

resetd serve --help lists the settings.
`

// run is the whole program, without what belongs to a process. It returns when ctx has ended and accepted requests are
// delivered.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	switch command, args := args[0], args[1:]; command {
	case "serve":
		return serve(ctx, args, environ, stderr)
	case "dev":
		return dev(ctx, args, environ, stdout, stderr)
	case "check":
		return checkSettings(ctx, args, environ, stdout, stderr)
	case "healthcheck":
		return healthcheck(ctx, args, environ, stdout, stderr)
	case "templates":
		return templates(args, stdout, stderr)
	case "version", "--version":
		fmt.Fprintf(stdout, "resetd %s (revision %s, %s)\n", version, revision(), runtime.Version())
		return nil
	case "help", "--help", "-h":
		fmt.Fprint(stdout, usage)
		return nil
	default:
		fmt.Fprintf(stderr, "resetd: there is no command %q: see resetd help\n", command)
		return errUsage
	}
}

func exitStatus(err error, stderr io.Writer) int {
	var wrong setting.Mistakes
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	fmt.Fprintln(stderr, "resetd:", err)
	if errors.As(err, &wrong) {
		return 2
	}
	return 1
}

// revision returns the commit that the program was built from, if the linker or the toolchain has set it.
func revision() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	known, changed := "unknown", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision" && len(setting.Value) >= 12:
			known = setting.Value[:12]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			changed = "+changes"
		}
	}
	return known + changed
}
