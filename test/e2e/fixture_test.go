// Package e2e tests the real binary over HTTP: the operation, sequences of requests, limits, privacy,
// overload and webhooks.
package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/resetd/resetd/test/resetdtest"
)

func TestMain(m *testing.M) { os.Exit(resetdtest.Main(m)) }

// The accounts and origins of every test.
const (
	knownEmail   = "known@example.com"
	otherKnown   = "other.known@example.com"
	unknownEmail = "stranger@example.org"
	site         = resetdtest.Site
	preview      = resetdtest.Preview
	endpoint     = resetdtest.Endpoint
)

// fixture is a server that has the accounts of every test.
type fixture struct {
	*resetdtest.Server
	t        testing.TB
	accounts []string // as they are stored
}

// start starts a server, with more accounts.
func start(t testing.TB, config resetdtest.Config) *fixture {
	t.Helper()
	config.Accounts = append([]string{knownEmail, otherKnown, "UPPER@example.com"}, config.Accounts...)
	f := &fixture{resetdtest.Start(t, config), t, config.Accounts}
	f.Confidential(gossip)
	return f
}

// The bounds of a connection, as cmd/resetd/serve.go has them.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // of headers and body together
)
