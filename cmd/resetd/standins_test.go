package main

import (
	"testing"

	"github.com/resetd/resetd/impl/redisclient/redistest"
	"github.com/resetd/resetd/test/resetdtest"
)

// The accounts and origins of these tests.
const (
	knownEmail = "known@example.com"
	otherKnown = "other.known@example.com"
	site       = resetdtest.Site
	preview    = resetdtest.Preview
	endpoint   = resetdtest.Endpoint
)

// newRedis reserves an address for a real redis-server that wants a password, and starts nothing yet.
func newRedis(t testing.TB) *redistest.Server {
	t.Helper()
	s := redistest.New(t)
	s.Password = "pass-of-the-redis-server"
	return s
}
