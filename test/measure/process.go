// Package measure runs resetd, and stand-ins for its upstreams, as separate processes, and reads what they cost.
// test/bench and test/timing measure with it.
package measure

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Site is the app's origin.
const Site = "https://app.example.com"

// Wide limits refuse nothing, and count in as many windows as the default limits.
const Wide = "1000000000-M,1000000000-H"

// Process is a child that serves on the loopback.
type Process struct {
	Addr  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// listening is in resetd's log when it listens; the other children write the same.
var listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)

// StartResetd runs a binary of resetd with stand-ins. It listens at addr, which may be empty if its log says
// where it listens.
func StartResetd(ctx context.Context, program, addr, upstreams string, settings ...string) (*Process, error) {
	env := []string{
		"LISTEN_ADDR=" + cmp.Or(addr, "127.0.0.1:0"), "SHUTDOWN_DELAY=0s", "SITE_URL=" + Site, "RATE_LIMIT=" + Wide, "RECIPIENT_LIMIT=" + Wide,
		"SUPABASE_URL=" + upstreams, "SUPABASE_SERVICE_ROLE_KEY=service-role-key",
		"MAILGUN_API_BASE=" + upstreams, "MAILGUN_API_KEY=mailgun-key", "MAILGUN_DOMAIN=mg.example.com",
	}
	return start(ctx, addr, slices.Concat(env, settings), program, "serve")
}

// StartSelf runs this program again, which calls Serve.
func StartSelf(ctx context.Context, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, "", nil, self, args...)
}

// Serve serves in a child, and says where it listens in the words of resetd's log.
func Serve(handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"msg\":\"listening\",\"addr\":%q}\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return server.Serve(listener)
}

// start runs a program, and waits until it listens, at addr, or if addr is empty where its log says. The log goes
// to a file, because this process would have to work for each line of a pipe.
func start(ctx context.Context, addr string, env []string, program string, args ...string) (*Process, error) {
	file, err := os.CreateTemp("", "resetd-measure-*.log")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &Process{Addr: addr, cmd: exec.CommandContext(ctx, program, args...), log: file.Name(), ended: make(chan struct{})}
	p.cmd.Env = env // without the caller's settings
	p.cmd.Stdout, p.cmd.Stderr = file, file
	if err := p.cmd.Start(); err != nil {
		_ = os.Remove(p.log)
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter, only that it did
		close(p.ended)
	}()
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		if p.listens() {
			return p, nil
		}
		select {
		case <-p.ended:
			defer p.Stop()
			return nil, fmt.Errorf("%s has ended:\n%s", program, p.head())
		case <-time.After(500 * time.Microsecond): // bounds the error of the measured start
		}
	}
	defer p.Stop()
	return nil, fmt.Errorf("%s does not listen after 10 s:\n%s", program, p.head())
}

// listens says whether the process listens, and stores its address.
func (p *Process) listens() bool {
	if p.Addr == "" {
		if found := listening.FindSubmatch(p.head()); found != nil {
			p.Addr = string(found[1])
		}
		return p.Addr != ""
	}
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// head returns the beginning of the log.
func (p *Process) head() []byte {
	file, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer file.Close()
	head, _ := io.ReadAll(io.LimitReader(file, 16<<10))
	return bytes.TrimSpace(head)
}

// URL returns the URL of the process.
func (p *Process) URL() string { return "http://" + p.Addr }

// Log returns the log of the process.
func (p *Process) Log() ([]byte, error) { return os.ReadFile(p.log) }

// Kill ends a process that would take too long to stop.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	p.Stop()
}

// Stop ends the process, and waits at most 5 s for that.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = os.Remove(p.log)
}

// ProcessorTime returns user and system time of all threads, also of ended ones. The kernel counts it in ticks of
// 10 ms; a round takes about a second, so the error is about one in a hundred.
func (p *Process) ProcessorTime() (time.Duration, error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	stat, err := proc.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// Memory returns the resident set of the process in bytes, now and its maximum since the start.
func (p *Process) Memory() (resident, peak uint64, err error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	status, err := proc.NewStatus()
	return status.VmRSS, status.VmHWM, err
}
