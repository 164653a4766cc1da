package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	siteURL = "https://app.example.com"
	wide    = "1000000000-M,1000000000-H"
)

// measure runs one scenario against a fresh resetd.
func measure(ctx context.Context, o options, s scenario, n int) (result, error) {
	// Who has an account is drawn, so that nothing in a request tells them apart.
	people := make([]bool, 2*n)
	for i := range n {
		people[i] = true
	}
	rand.Shuffle(len(people), func(i, j int) { people[i], people[j] = people[j], people[i] })

	upstream, err := startStandIns(people, s.faults)
	if err != nil {
		return result{}, err
	}
	defer upstream.close()
	target, stop, err := startResetd(ctx, o.resetd, append([]string{
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off", "RATE_LIMIT=" + wide, "MAIL_DECOY_LIMIT=1000000000-H",
		"SUPABASE_URL=" + upstream.url, "SUPABASE_SERVICE_ROLE_KEY=timing-service-role-key",
		"MAILGUN_API_BASE=" + upstream.url, "MAILGUN_API_KEY=timing-mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
		"SITE_URL=" + siteURL,
	}, s.env...))
	if err != nil {
		return result{}, err
	}
	defer stop()

	times, err := ask(ctx, target, len(people), o.connections, s.quantum)
	if err != nil {
		return result{}, err
	}
	var known, stranger []time.Duration
	for person, took := range times {
		if people[person] {
			known = append(known, took)
		} else {
			stranger = append(stranger, took)
		}
	}
	r := result{scenario: s, n: n, known: newSample(known, s.quantum), stranger: newSample(stranger, s.quantum)}
	r.beat = newAUC(r.known.beats, r.stranger.beats)
	r.offset = newAUC(r.known.offsets, r.stranger.offsets)
	return r, nil
}

func address(person int) string { return fmt.Sprintf("person%06d@example.com", person) }

// ask asks for everybody once and returns when the first byte of each answer came. Before each
// request a connection pauses, so that not all of them wait for the same beat.
func ask(ctx context.Context, target string, people, connections int, quantum time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	times := make([]time.Duration, people)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(connections, people) {
		all.Go(func() {
			var err error
			pause := rand.N(quantum + time.Millisecond) // the first, spreads over the whole beat
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
				person := int(next.Add(1)) - 1
				if person >= people {
					return
				}
				if times[person], err = askOnce(target, person); err != nil {
					cancel(err)
					return
				}
				pause = rand.N(50 * time.Millisecond)
			}
		})
	}
	all.Wait()
	return times, context.Cause(ctx)
}

// askOnce writes bytes and reads bytes: an http.Client would add its own goroutines to the time.
// The connection is made before the clock starts, and is resetd's to close.
func askOnce(target string, person int) (time.Duration, error) {
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	body := `{"email":"` + address(person) + `"}`
	request := fmt.Appendf(nil, "POST /api/auth/send-password-reset HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", target, len(body), body)
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	if _, err := reader.Peek(1); err != nil {
		return 0, err
	}
	took := time.Since(began)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("answered %d, so time is the least of it: %s", response.StatusCode, answer)
	}
	return took, nil
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
	cmd.Env = append(env, "SHUTDOWN_TIMEOUT=0s") // deliveries that go on need not be finished
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
		text, err := os.ReadFile(logPath)
		if err != nil {
			break
		}
		if found := listening.FindSubmatch(text); found != nil {
			return string(found[1]), stop, nil
		}
		select {
		case <-ended:
			stop()
			return "", nil, fmt.Errorf("%s has ended:\n%s", program, text)
		default:
		}
	}
	stop()
	return "", nil, fmt.Errorf("%s does not listen after 10 s", program)
}
