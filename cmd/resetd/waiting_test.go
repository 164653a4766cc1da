package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestWaitingIsCheap: 10,000 requests that wait for their beat cost the real binary less than
// 200 MB; half of the clients leave, which frees their requests at once, and the others are
// answered.
func TestWaitingIsCheap(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc, which only Linux has")
	}
	if raceEnabled {
		t.Skip("the race detector makes this process too slow to ask; make test runs it without")
	}
	const (
		requests = 10_000
		window   = 300 // requests that are not yet waiting
		limit    = 200 << 20
		quantum  = 10 * time.Second
	)
	// The stand-ins of package devstack would take longer than resetd itself.
	var decided atomic.Int64
	supabase := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":404,"error_code":"user_not_found","msg":"User with this email not found"}`)
	}))
	defer supabase.Close()
	mailgun := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)
		decided.Add(1)
	}))
	defer mailgun.Close()

	logs := &buffer{}
	command := exec.Command(shipped(t), "serve")
	command.Stderr = logs
	command.Env = append(os.Environ(),
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_ADDR=off",
		"SUPABASE_URL="+supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=key",
		"MAILGUN_API_BASE="+mailgun.URL, "MAILGUN_API_KEY=key", "MAILGUN_DOMAIN=mg.example.com", "SITE_URL="+site,
		"RATE_LIMIT=1000000-M", "RECIPIENT_LIMIT=1000000-M", "MAIL_DECOY_LIMIT=1000000-H",
		"RESPONSE_QUANTUM="+quantum.String(), "MAX_IN_FLIGHT=20000", "UPSTREAM_TIMEOUT=20s",
	)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	address := logs.await(t, `"listening","addr":"([^"]+)"`)

	body := `{"email":"` + unknownEmail + `"}`
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, len(body), body)
	began := time.Now()
	await := func(n int) {
		for decided.Load() < int64(n) {
			if time.Since(began) > time.Minute {
				t.Fatalf("%d requests within a minute", decided.Load())
			}
			time.Sleep(time.Millisecond)
		}
	}
	connections := make([]net.Conn, requests)
	for i := range connections {
		await(i - window)
		connection, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.WriteString(connection, request); err != nil {
			t.Fatal(err)
		}
		connections[i] = connection
	}
	await(requests)
	all := time.Since(began)
	peak := resident(t, command.Process.Pid, "VmHWM")
	t.Logf("%d requests within %v: peak %d MB", requests, all.Round(time.Millisecond), peak>>20)
	if peak > limit {
		t.Errorf("%d waiting requests take %d MB, want at most %d", requests, peak>>20, limit>>20)
	}
	if all > quantum*9/10 {
		// The bound above still holds; it was just not put to the whole test.
		t.Skipf("this machine is too slow for all to wait at once: %v", all)
	}

	// The second half leaves: the later ones, whose beat is farther off.
	for _, connection := range connections[requests/2:] {
		_ = connection.Close()
	}
	for i, connection := range connections[:requests/2] {
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("request %d: %s, %v", i, response.Status, err)
		}
	}
	early := 0
	for _, record := range logs.records(t, "request") {
		if record["duration_ms"].(float64) < float64(quantum.Milliseconds()) {
			early++
		}
	}
	if early < requests*49/100 || early > requests/2 {
		t.Errorf("%d requests ended before their beat; %d clients had left", early, requests/2)
	}
}

// resident reads a figure of /proc/PID/status, in bytes.
func resident(t *testing.T, pid int, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// TestHalfClosed: a client that closes its sending half can still see when ours closes, which
// must tell no more than an answer does (H1).
func TestHalfClosed(t *testing.T) {
	const quantum = time.Second
	f := start(t, setup{env: map[string]string{"RESPONSE_QUANTUM": quantum.String()}})
	connection, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	body := `{"email":"` + unknownEmail + `"}`
	began := time.Now()
	fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, len(body), body)
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = connection.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, err = connection.Read(make([]byte, 1))
	if took := time.Since(began); took < quantum {
		t.Errorf("answered or closed (%v) after %v, before the beat", err, took)
	}
}
