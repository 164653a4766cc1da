package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority for tests.
type Authority struct {
	PEM string // its certificate

	tb          testing.TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{tb: tb, key: newKey(tb)}
	template := template()
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.PEM = encode("CERTIFICATE", der)
	return a
}

// Issue makes a certificate for hosts and IP addresses, for servers or clients, that is valid until the given time.
func (a *Authority) Issue(until time.Time, hosts ...string) (certificate, key string) {
	a.tb.Helper()
	template := template()
	template.NotAfter = until
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	private := newKey(a.tb)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.tb.Fatal(err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", pkcs8)
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func template() *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60)) // never fails (crypto/rand)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serial.String()}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// UseTLS makes a server that is not started yet also speak TLS, with a certificate of an authority, at the returned
// address. If it asks clients for a certificate, that must be from the same authority.
func (s *Server) UseTLS(a *Authority, until time.Time, askClients bool, hosts ...string) (addr string) {
	s.tb.Helper()
	certificate, key := a.Issue(until, hosts...)
	ask := "no"
	if askClients {
		ask = "yes"
	}
	_, port, _ := net.SplitHostPort(freeAddr(s.tb))
	s.Args = append(s.Args, "--tls-port", port, "--tls-auth-clients", ask, "--tls-ca-cert-file", s.write("ca.pem", []byte(a.PEM)),
		"--tls-cert-file", s.write("cert.pem", []byte(certificate)), "--tls-key-file", s.write("key.pem", []byte(key)))
	return net.JoinHostPort(s.Host(), port)
}

// write writes a file into the server's directory, and returns its path.
func (s *Server) write(name string, content []byte) string {
	s.tb.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}
