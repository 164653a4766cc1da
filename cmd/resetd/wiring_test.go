package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/delivery"
	"github.com/resetd/resetd/impl/observe"
	"github.com/resetd/resetd/test/resetdtest"
)

// TestGivenUp: beyond six times MAX_ACCEPTED the oldest pending request is given up, and counted.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	settings, err := readSettings("serve", nil, []string{"MAX_ACCEPTED=1"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		logs, registry := &resetdtest.Log{}, prometheus.NewRegistry()
		observer := observe.New(slog.New(slog.NewJSONHandler(logs, nil)), registry, nil)
		requests, err := newOutbox(settings, &delivery.Deliverer{
			Watcher: observer, Resting: func() bool { return true }, // an outage
			Timeout: settings.DeliveryTimeout, Fingerprint: func(account string) string { return "hash of " + account },
		}, observer)
		if err != nil {
			t.Fatal(err)
		}
		values := func() (pending, age, givenUp float64) {
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				switch family.GetName() {
				case "resetd_pending_requests":
					pending = family.GetMetric()[0].GetGauge().GetValue()
				case "resetd_oldest_pending_request_age_seconds":
					age = family.GetMetric()[0].GetGauge().GetValue()
				case "resetd_given_up_total":
					givenUp = family.GetMetric()[0].GetCounter().GetValue()
				}
			}
			return pending, age, givenUp
		}
		for i := range 7 {
			if pending, age, givenUp := values(); pending != float64(i) || age != float64(10*i) || givenUp != 0 {
				t.Errorf("after %d requests: %v pending, the oldest for %v s, %v given up", i, pending, age, givenUp)
			}
			if err := requests.Put(t.Context(), impl.Request{ID: fmt.Sprint("id-", i), Email: fmt.Sprint("account-", i), Accepted: time.Now()}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if pending, age, givenUp := values(); pending != 6 || age != 60 || givenUp != 1 {
			t.Errorf("after seven requests: %v pending, the oldest for %v s, %v given up", pending, age, givenUp)
		}
		records := logs.Records(t, "delivery")
		if len(records) != 1 || records[0]["request_id"] != "id-0" || records[0]["account"] != "hash of account-0" || records[0]["outcome"] != "undelivered" || records[0]["error"] != "too many requests are pending" {
			t.Errorf("logged %v", records)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := requests.Close(ended); err == nil || !strings.HasSuffix(err.Error(), ": 6") {
			t.Errorf("six are left, and the outbox says %v", err)
		}
	})
}
