package impl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Cause is what may be logged of an error that came from the network: its kind. Its own text
// may repeat the address called and, where an upstream answers nonsense, pieces of the answer,
// which hold what was asked (H7). A deadline can still be told by errors.Is.
func Cause(err error) error {
	var (
		timeout interface{ Timeout() bool }
		lookup  *net.DNSError
		number  syscall.Errno
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.As(err, &lookup):
		return errors.New("its host name has no address")
	case errors.As(err, &number):
		return number // "connection refused", "connection reset by peer"
	case errors.As(err, &unknown):
		return errors.New("its certificate is signed by an unknown authority")
	case errors.As(err, &verify):
		return errors.New("its certificate is not valid for it")
	case errors.As(err, &record):
		return errors.New("it does not speak TLS")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return errors.New("the connection was closed before the answer's end")
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return errors.New("its answer could not be understood")
}
