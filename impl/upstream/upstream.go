// Package upstream bounds the calls of upstreams, and reduces their errors to what may be logged.
//
// It must never let an answer, an address or a key into an error.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// NewClient returns an HTTP client with connections of its own. A call takes timeout at most, from
// connecting to the last byte of the answer, of which maxAnswer bytes are read. Redirects are not
// followed: they would carry the key elsewhere.
func NewClient(timeout time.Duration, maxAnswer int64) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64 // the default of 2 would reconnect for most parallel calls
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport:     bounded{transport, timeout, maxAnswer},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded ends calls after a time: http.Client's own Timeout costs a goroutine for each call, with any
// transport but net/http's.
type bounded struct {
	*http.Transport
	timeout   time.Duration
	maxAnswer int64
}

// timedBody is the body of an answer. It ends the time of its call when it is closed.
type timedBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b timedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(request.Context(), b.timeout)
	response, err := b.Transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		cancel()
		// A connection that failed may be dead, and the next call would fail with it.
		b.CloseIdleConnections()
		return nil, fmt.Errorf("%w", err) // http.Client replaces a bare tls.RecordHeaderError
	}
	response.Body = timedBody{http.MaxBytesReader(nil, response.Body, b.maxAnswer), cancel}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil && response.StatusCode == http.StatusTooManyRequests {
		_ = response.Body.Close()
		return nil, &BusyError{time.Duration(seconds) * time.Second}
	}
	return response, nil
}

// BusyError is an answer 429 with a Retry-After in seconds (RFC 9110, section 10.2.3).
type BusyError struct{ After time.Duration }

func (e *BusyError) Error() string { return "status 429, to be tried again after " + e.After.String() }

// RetryAfter returns the time that the upstream asks to wait.
func (e *BusyError) RetryAfter() time.Duration { return e.After }

// The errors of TLS.
var (
	ErrUnknownAuthority = errors.New("its certificate is signed by an unknown authority")
	ErrOtherName        = errors.New("its certificate is for another host")
	ErrExpired          = errors.New("its certificate has expired, or is not valid yet")
	// ErrTLSRefused says that the server asks for a client certificate, or refuses the given one.
	ErrTLSRefused = errors.New("it does not take this client's TLS certificate")
)

// Cause returns a network error that may be logged: the kind of err, without its text, which may repeat the
// address called and pieces of the answer. errors.Is still finds context.DeadlineExceeded in it.
func Cause(err error) error {
	var (
		busy    *BusyError
		timeout interface{ Timeout() bool }
		lookup  *net.DNSError
		number  syscall.Errno
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		refused *net.OpError
	)
	switch {
	case errors.As(err, &busy):
		return busy
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &lookup):
		return errors.New("its host name has no address")
	case errors.As(err, &number):
		return number // "connection refused", "connection reset by peer"
	case errors.As(err, &unknown):
		return ErrUnknownAuthority
	case errors.As(err, &host):
		return ErrOtherName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return ErrExpired
	case errors.As(err, &verify):
		return errors.New("its certificate is not valid for it")
	case errors.As(err, &record):
		return errors.New("it does not speak TLS")
	case errors.As(err, new(*http.MaxBytesError)):
		return errors.New("its answer is too large")
	case errors.As(err, &refused) && refused.Op == "remote error": // an alert, in words of crypto/tls
		if strings.Contains(refused.Err.Error(), "certificate") {
			return ErrTLSRefused
		}
		return errors.New("it refuses the TLS connection")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return errors.New("the connection was closed before the answer's end")
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return errors.New("its answer could not be understood")
}
