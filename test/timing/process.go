package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/resetd/resetd/test/measure"
)

// subject is a resetd with its own stand-ins.
type subject struct {
	*measure.Process
	people   *measure.People
	standIns measure.StandIns
	program  string
	env      []string
}

func (s *subject) stop() {
	s.Stop()
	s.standIns.Stop()
}

// startAll starts as many subjects as a row needs.
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

// start runs the stand-ins and resetd, and sends it a few requests.
func start(ctx context.Context, o options, r row) (*subject, error) {
	s := &subject{people: &measure.People{Seed: rand.Uint64()}, program: o.resetd}
	if r.blind {
		s.program = o.blind
	}
	r.standIns.Seed = s.people.Seed
	var err error
	if s.standIns, err = measure.StartStandIns(ctx, r.standIns); err != nil {
		return nil, err
	}
	s.env = []string{"ADMIN_ADDR=off", "SHUTDOWN_TIMEOUT=0s"} // pending requests need not be delivered
	if o.old {
		s.env = append(s.env, "MAIL_DECOY_LIMIT=1000000000-H")
	} else {
		// Deliveries begin when they are due, not when there is room, and end soon.
		s.env = append(s.env, "MAX_ACCEPTED=1000000", "MAX_DELIVERIES=1000", "UPSTREAM_TIMEOUT=1s", "DELIVERY_TIMEOUT=2s")
	}
	s.env = slices.Concat(s.env, r.env, o.env)
	if s.Process, err = s.startResetd(ctx); err != nil {
		s.standIns.Stop()
		return nil, err
	}
	c := connection{target: s.Addr}
	defer c.close()
	for range r.warmUp {
		address, _ := s.people.Next()
		if _, err := c.ask(address); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// startResetd runs an instance with the stand-ins.
func (s *subject) startResetd(ctx context.Context) (*measure.Process, error) {
	return measure.StartResetd(ctx, s.program, "", s.standIns.URL(), s.env...)
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
