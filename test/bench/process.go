//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that serves on the loopback.
type process struct {
	cmd   *exec.Cmd
	url   string
	log   string
	ended chan struct{}
}

// listening is what resetd's log says when it listens; the others of this program write the
// same line. admin is the address of resetd's metrics.
var (
	listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)
	admin     = regexp.MustCompile(`"admin_addr":"([^"]+)"`)
	pending   = regexp.MustCompile(`(?m)^resetd_pending_requests (\S+)$`)
	sent      = regexp.MustCompile(`"outcome":"sent",.*"duration_ms":([0-9.]+)`)
)

// start runs a program and waits until it listens: at addr, or where its log says if that is empty. The
// log goes to a file: a pipe would have this process work for each line.
func start(ctx context.Context, dir, program, addr string, args, env []string) (*process, error) {
	file, err := os.CreateTemp(dir, "log-")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{cmd: exec.CommandContext(ctx, program, args...), log: file.Name(), ended: make(chan struct{})}
	p.cmd.Env = env // nothing of the caller's settings
	p.cmd.Stdout, p.cmd.Stderr = file, file
	// Even a killed bench leaves nothing running.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter, only that it did
		close(p.ended)
	}()
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		if p.listens(addr) {
			return p, nil
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s has ended:\n%s", program, p.logged())
		case <-time.After(500 * time.Microsecond): // bounds the error of the start's time
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s does not listen after 10 s:\n%s", program, p.logged())
}

// listens says whether the process does, and notes where.
func (p *process) listens(addr string) bool {
	if addr == "" {
		found := listening.FindStringSubmatch(p.logged())
		if found == nil {
			return false
		}
		addr = found[1]
	} else {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		conn.Close()
	}
	p.url = "http://" + addr
	return true
}

// logged is the beginning of the log.
func (p *process) logged() string {
	file, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer file.Close()
	head := make([]byte, 4<<10)
	n, _ := file.Read(head)
	return string(head[:n])
}

// pending asks resetd how many requests are accepted and not delivered yet.
func (p *process) pending() (int, error) {
	found := admin.FindStringSubmatch(p.logged())
	if found == nil {
		return 0, errors.New("the log names no admin_addr")
	}
	response, err := http.Get("http://" + found[1] + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if found = pending.FindStringSubmatch(string(metrics)); found == nil {
		return 0, errors.New("there is no metric resetd_pending_requests")
	}
	number, err := strconv.ParseFloat(found[1], 64)
	return int(number), err
}

// sent reads from resetd's log how long each mail took, from the acceptance of its request.
func (p *process) sent() (took []time.Duration, err error) {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return nil, err
	}
	for _, found := range sent.FindAllSubmatch(log, -1) {
		one, err := time.ParseDuration(string(found[1]) + "ms")
		if err != nil {
			return nil, err
		}
		took = append(took, one)
	}
	if len(took) == 0 {
		return nil, errors.New("the log has no delivery that was sent")
	}
	return took, nil
}

// kill ends a server that has more to do than is worth waiting for.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.stop()
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = os.Remove(p.log)
}

// tick is that of /proc/PID/stat: the kernel's USER_HZ is 100 on every platform that Go runs
// on. A round takes a second or so, which makes it an error of one in a hundred.
const tick = 10 * time.Millisecond

// processorTime is user and system time of all threads, past ones too.
func (p *process) processorTime() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, which may hold anything.
	_, rest, found := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is not as expected")
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, 14 and 15 as proc(5) counts
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// machine is how the processors have spent their time.
type machine struct{ busy, all time.Duration }

func machineTime() (m machine, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return m, errors.New("/proc/stat is not as expected")
	}
	for i, field := range fields[1:9] { // user, nice, system, idle, iowait, irq, softirq, steal
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return m, err
		}
		m.all += time.Duration(ticks) * tick
		if i != 3 && i != 4 {
			m.busy += time.Duration(ticks) * tick
		}
	}
	return m, nil
}

// others returns the part of the processors' time since then that was taken by programs other than
// this one and its children, all of which have ended.
func (before machine) others() (float64, error) {
	now, err := machineTime()
	if err != nil {
		return 0, err
	}
	others := now.busy - before.busy
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if err := syscall.Getrusage(who, &used); err != nil {
			return 0, err
		}
		others -= time.Duration(used.Utime.Nano() + used.Stime.Nano())
	}
	return max(0, others.Seconds()/(now.all-before.all).Seconds()), nil
}

// memory reads one of the sizes in /proc/PID/status, in bytes.
func (p *process) memory(name string) (int64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if value, found := strings.CutPrefix(lines.Text(), name+":"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/PID/status has no %s", name)
}
