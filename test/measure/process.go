// Package measure runs resetd, and stand-ins for what it talks to, as processes of their own, and reads
// what they cost. test/bench and test/timing measure with it.
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

// Wide limits refuse nothing, and count in as many windows as the default ones.
const Wide = "1000000000-M,1000000000-H"

// Process is a child that serves on the loopback.
type Process struct {
	Addr  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// listening is what resetd's log says when it listens; the other children write the same.
var listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)

// StartResetd runs a binary of resetd between stand-ins. It listens at addr, which may be empty where its
// log says where it does.
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

// Serve serves in a child, and says where in the words of resetd's own log.
func Serve(handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("{\"msg\":\"listening\",\"addr\":%q}\n", listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return server.Serve(listener)
}

// start runs a program and waits until it listens, at addr, or where its log says if that is empty. The
// log goes to a file: a pipe would have this process work for each line.
func start(ctx context.Context, addr string, env []string, program string, args ...string) (*Process, error) {
	file, err := os.CreateTemp("", "resetd-measure-*.log")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &Process{Addr: addr, cmd: exec.CommandContext(ctx, program, args...), log: file.Name(), ended: make(chan struct{})}
	p.cmd.Env = env // nothing of the caller's settings
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
		case <-time.After(500 * time.Microsecond): // bounds the error of the start's time
		}
	}
	defer p.Stop()
	return nil, fmt.Errorf("%s does not listen after 10 s:\n%s", program, p.head())
}

// listens says whether the process does, and notes where.
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

// head is the beginning of the log.
func (p *Process) head() []byte {
	file, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer file.Close()
	head, _ := io.ReadAll(io.LimitReader(file, 16<<10))
	return bytes.TrimSpace(head)
}

// URL is where the process serves.
func (p *Process) URL() string { return "http://" + p.Addr }

// Log is what the process has logged.
func (p *Process) Log() ([]byte, error) { return os.ReadFile(p.log) }

// Kill ends a server that has more to do than is worth waiting for.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	p.Stop()
}

// Stop ends the process, after its own time to end but at most 5 s.
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

// ProcessorTime is user and system time of all threads, past ones too. The kernel counts it in ticks of
// 10 ms, and a round takes a second or so, which makes it an error of one in a hundred.
func (p *Process) ProcessorTime() (time.Duration, error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	stat, err := proc.Stat()
	return time.Duration(stat.CPUTime() * float64(time.Second)), err
}

// Memory is the resident set of the process, now and at most since its start, in bytes.
func (p *Process) Memory() (resident, peak uint64, err error) {
	proc, err := procfs.NewProc(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	status, err := proc.NewStatus()
	return status.VmRSS, status.VmHWM, err
}
