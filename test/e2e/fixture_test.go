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

// Every test has these accounts and origins.
const (
	knownEmail   = "known@example.com"
	otherKnown   = "other.known@example.com"
	unknownEmail = "stranger@example.org"
	site         = resetdtest.Site
	preview      = resetdtest.Preview
	endpoint     = resetdtest.Endpoint
)

// fixture is a server with the accounts of every test.
type fixture struct {
	*resetdtest.Server
	t        testing.TB
	accounts []string // as they are stored
}

// start starts a server, with further accounts.
func start(t testing.TB, config resetdtest.Config) *fixture {
	t.Helper()
	config.Accounts = append([]string{knownEmail, otherKnown, "UPPER@example.com"}, config.Accounts...)
	f := &fixture{resetdtest.Start(t, config), t, config.Accounts}
	f.Confidential(gossip)
	return f
}

// These are the bounds of a connection in cmd/resetd/serve.go.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // for headers and body together
)
