package outbox

import (
	"testing"
	"time"

	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/redisclient/redistest"
)

func TestPing(t *testing.T) {
	server := redistest.StartInProcess(t)
	target, wrong := redisclient.Parse(redisclient.Config{URL: server.URL()})
	if wrong != nil {
		t.Fatal(wrong)
	}
	if err := Ping(t.Context(), target, time.Minute); err != nil {
		t.Error(err)
	}
	if keys := server.Keys(); len(keys) != 0 {
		t.Errorf("it leaves %q", keys)
	}
}
