package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

const (
	siteURL = "https://app.example.com"
	wide    = "1000000000-M,1000000000-H"
)

// subject is a resetd between stand-ins of its own.
type subject struct {
	people   *people
	address  string // of resetd
	upstream string // URL of the stand-ins
	program  string
	env      []string
	stop     func()
}

// startAll starts as many subjects as a row wants.
func startAll(ctx context.Context, o options, r row) (subjects []*subject, stop func(), err error) {
	stop = func() {
		for _, s := range subjects {
			s.stop()
		}
	}
	for range max(1, r.subjects) {
		s, err := start(ctx, o, r)
		if err != nil {
			stop()
			return nil, nil, err
		}
		subjects = append(subjects, s)
	}
	return subjects, stop, nil
}

// start runs the stand-ins and resetd, and has it answer a few requests.
func start(ctx context.Context, o options, r row) (*subject, error) {
	s := &subject{people: &people{seed: rand.Uint64()}, program: o.resetd}
	if r.blind {
		s.program = o.blind
	}
	r.standIns.Seed = s.people.seed
	url, stopStandIns, err := startStandIns(ctx, r.standIns)
	if err != nil {
		return nil, err
	}
	s.upstream = url
	s.env = []string{
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", "RATE_LIMIT=" + wide, "RECIPIENT_LIMIT=" + wide,
		"SUPABASE_URL=" + url, "SUPABASE_SERVICE_ROLE_KEY=timing-service-role-key",
		"MAILGUN_API_BASE=" + url, "MAILGUN_API_KEY=timing-mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
		"SITE_URL=" + siteURL, "SHUTDOWN_DELAY=0s", "SHUTDOWN_TIMEOUT=0s", // what is pending need not be delivered
	}
	if o.old {
		s.env = append(s.env, "MAIL_DECOY_LIMIT=1000000000-H")
	} else {
		// Deliveries begin when they are due, not when there is room, and end soon.
		s.env = append(s.env, "MAX_ACCEPTED=1000000", "MAX_DELIVERIES=1000", "UPSTREAM_TIMEOUT=1s", "DELIVERY_TIMEOUT=2s")
	}
	s.env = slices.Concat(s.env, r.env, o.env)
	address, stopResetd, err := startResetd(ctx, s.program, s.env)
	if err != nil {
		stopStandIns()
		return nil, err
	}
	s.address = address
	s.stop = func() {
		stopResetd()
		stopStandIns()
	}
	c := connection{target: s.address}
	defer c.close()
	for range r.warmUp {
		address, _ := s.people.next()
		if _, err := c.ask(address); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// reset makes the stand-ins forget what they have accepted.
func (s *subject) reset(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.upstream+"/reset", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

var onURL = regexp.MustCompile(`listening on (\S+)`)

// startStandIns runs this program again.
func startStandIns(ctx context.Context, s standIns) (url string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	settings, err := json.Marshal(s)
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, asStandIns)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	}
	if _, err := in.Write(settings); err != nil {
		stop()
		return "", nil, err
	}
	line := make([]byte, 100)
	n, err := out.Read(line)
	found := onURL.FindSubmatch(line[:n])
	if found == nil {
		stop()
		return "", nil, fmt.Errorf("the stand-ins do not listen: %w", err)
	}
	return string(found[1]), stop, nil
}

var listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)

// startResetd runs the binary, with its log in a file, until stop is called or ctx ends.
func startResetd(ctx context.Context, program string, env []string) (address string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "resetd-timing-")
	if err != nil {
		return "", nil, err
	}
	logPath := filepath.Join(dir, "log")
	log, err := os.Create(logPath)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, program, "serve")
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter, only that it did
		close(ended)
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = os.RemoveAll(dir)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		text, err := firstBytes(logPath)
		if err != nil {
			break
		}
		if found := listening.FindSubmatch(text); found != nil {
			return string(found[1]), stop, nil
		}
		select {
		case <-ended:
			text, _ = firstBytes(logPath)
			stop()
			return "", nil, fmt.Errorf("%s has ended:\n%s", program, text)
		default:
		}
	}
	stop()
	return "", nil, fmt.Errorf("%s does not listen after 10 s", program)
}

func firstBytes(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 16<<10))
}

// buildBlind builds the resetd whose deliveries begin at once.
func buildBlind(ctx context.Context, dir string) (program string, err error) {
	program = filepath.Join(dir, "resetd-start-at-once")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "start_at_once", "-o", program, "github.com/resetd/resetd/cmd/resetd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(out))
	}
	return program, nil
}
