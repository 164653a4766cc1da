// Package contract compares the answers of the real binary with openapi.yaml.
package contract

import (
	"flag"
	"os"
	"testing"

	"github.com/resetd/resetd/test/resetdtest"
)

func TestMain(m *testing.M) {
	if !resetdtest.Full {
		_ = flag.Set("rapid.checks", "25") // of each kind of request; 100 in make test
	}
	os.Exit(resetdtest.Main(m))
}

// Every test has these accounts and origins.
const (
	knownEmail   = "known@example.com"
	otherKnown   = "other.known@example.com"
	unknownEmail = "stranger@example.org"
	site         = resetdtest.Site
	preview      = resetdtest.Preview
	endpoint     = resetdtest.Endpoint
)

// start starts a server as it is shipped, with the accounts of every test.
func start(t testing.TB, config resetdtest.Config) *resetdtest.Server {
	t.Helper()
	config.Build = resetdtest.BuildShipped
	config.Accounts = append([]string{knownEmail, otherKnown, "UPPER@example.com"}, config.Accounts...)
	return resetdtest.Start(t, config)
}
