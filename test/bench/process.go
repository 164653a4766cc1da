//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
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
// same line.
var listening = regexp.MustCompile(`"msg":"listening","addr":"([^"]+)"`)

// start runs a program and waits until it says where it listens. Its log goes to a file: a
// pipe would have this process work for each line.
func start(ctx context.Context, dir, program string, args, env []string) (*process, error) {
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
		if found := listening.FindStringSubmatch(p.logged()); found != nil {
			p.url = "http://" + found[1]
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
