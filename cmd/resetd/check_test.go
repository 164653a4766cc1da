package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resetd/resetd/impl/devstack"
)

// TestCheckUsage: an invalid address or flag is a usage error, before resetd check asks or sends anything.
func TestCheckUsage(t *testing.T) {
	for _, args := range [][]string{
		{"--send-to", ""}, {"--send-to", "nobody"}, {"--send-to", "a@b.co,c@d.co"}, {"--send-to", "Me <me@example.com>"},
		{"--send-to", "me@example.com "}, {"--send-to", "me@example.com\r\nBcc: you@example.com"}, {"--send-to", "<me@example.com>"},
		{"--send-to"}, {"--no-such-flag"}, {"extra"},
	} {
		out, stderr, status := inProcess(t, append([]string{"check"}, args...), []string{"SUPABASE_URL=http://127.0.0.1:1"})
		if status != 2 || out != "" || stderr == "" {
			t.Errorf("%q: status %d, %q, %q", args, status, out, stderr)
		}
	}
	out, stderr, status := inProcess(t, []string{"check", "--help"}, nil)
	if status != 0 || !strings.Contains(out+stderr, "-send-to ADDRESS") {
		t.Errorf("--help: status %d, %q", status, out+stderr)
	}
}

func inProcess(t *testing.T, args, environ []string) (out, errors string, status int) {
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status = exitStatus(run(ctx, args, environ, &stdout, &stderr), &stderr)
	return stdout.String(), stderr.String(), status
}

// TestCheckRegions: if the key is refused or the domain is unknown, resetd check tries the other region, and
// names it if it is the right one. The test runs the binary, which finds both regions through HTTPS_PROXY.
func TestCheckRegions(t *testing.T) {
	const us, eu = "api.mailgun.net", "api.eu.mailgun.net"
	for name, tt := range map[string]struct {
		base  string // empty: the default
		us    int
		eu    int
		want  string
		asked []string
	}{
		"EU key at the US":            {us: 401, eu: 200, asked: []string{us, eu}, want: `the key is refused \(status 401\)\. What to do: the domain is in the EU, where the message is accepted: set MAILGUN_API_BASE=https://api\.eu\.mailgun\.net$`},
		"EU domain at the US":         {us: 404, eu: 200, asked: []string{us, eu}, want: `the domain is not known there \(status 404\)\. What to do: the domain is in the EU, .*set MAILGUN_API_BASE=https://api\.eu\.mailgun\.net$`},
		"US domain at the EU":         {base: "https://" + eu + "/v3/", us: 200, eu: 404, asked: []string{eu, us}, want: `the domain is not known there \(status 404\)\. What to do: the domain is in the US, .*set MAILGUN_API_BASE=https://api\.mailgun\.net$`},
		"wrong key in both":           {us: 401, eu: 401, asked: []string{us, eu}, want: `the key is refused \(status 401\)\. What to do: give a sending key of mg\.example\.com .*It was tried in the EU too \(https://api\.eu\.mailgun\.net\), in vain: the key is refused \(status 401\)$`},
		"wrong domain in both":        {us: 404, eu: 404, asked: []string{us, eu}, want: `the domain is not known there \(status 404\)\. What to do: check that MAILGUN_DOMAIN=mg\.example\.com.*in vain: the domain is not known there \(status 404\)$`},
		"nothing to do with a region": {us: 403, eu: 200, asked: []string{us}, want: `the message is not accepted \(status 403\)\. What to do: see in Mailgun whether`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var asked []string
			regions, certificate := tlsFor(t, []string{us, eu}, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = append(asked, r.Host)
				mu.Unlock()
				if _, key, _ := r.BasicAuth(); key != "test-mailgun-key" {
					t.Errorf("the key %q", key)
				}
				status := tt.us
				if r.Host == eu {
					status = tt.eu
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"id":"<1@mg.example.com>","message":"Queued. Thank you."}`)
			})
			stack := devstack.New(devstack.Config{SiteURL: site, ServiceRoleKey: "test-service-role-key"})
			t.Cleanup(stack.Close)
			supabase := httptest.NewServer(stack.Supabase())
			t.Cleanup(supabase.Close)
			environ := []string{
				"SUPABASE_URL=" + supabase.URL, "SUPABASE_SERVICE_ROLE_KEY=test-service-role-key", "SITE_URL=" + site,
				"MAILGUN_API_KEY=test-mailgun-key", "MAILGUN_DOMAIN=mg.example.com", "MAILGUN_API_BASE=" + tt.base,
				"HTTPS_PROXY=" + proxyTo(t, regions), "SSL_CERT_FILE=" + certificate, "SSL_CERT_DIR=" + t.TempDir(), "PATH=" + os.Getenv("PATH"),
			}
			out, stderr, status := inBinary(t, []string{"check"}, environ)
			if status != 1 || !regexp.MustCompile(`(?m)^FAILED  mailgun   `+tt.want).MatchString(out) || strings.Contains(out+stderr, "test-mailgun-key") {
				t.Errorf("status %d, want FAILED  mailgun   %s, got:\n%s%s", status, tt.want, out, stderr)
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked were %q, want %q", asked, tt.asked)
			}
		})
	}
}

func inBinary(t *testing.T, args, environ []string) (string, string, int) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("resetd", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// tlsFor serves the hosts over TLS, and returns the server's address and a file with its certificate.
func tlsFor(t *testing.T, hosts []string, handler http.HandlerFunc) (address, certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: hosts, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), certificate
}

// proxyTo returns a proxy that leads every CONNECT to one address.
func proxyTo(t *testing.T, address string) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			t.Errorf("the proxy got %s %s", r.Method, r.URL)
			return
		}
		out, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		w.WriteHeader(http.StatusOK)
		in, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer in.Close()
		go func() { _, _ = io.Copy(out, early); out.Close() }()
		_, _ = io.Copy(in, out)
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL
}
