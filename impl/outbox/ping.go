package outbox

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient"
)

// Ping tries in Redis all that an outbox does there, under keys of its own that it removes again: a Redis user that
// may count for limits may not be allowed to use streams. Its error is one of redisclient.Fault.
func Ping(ctx context.Context, target *redisclient.Target, timeout time.Duration) error {
	client := redisclient.New(target, timeout, 1)
	defer func() { _ = client.Close() }() // nothing is lost with its connection
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	names := newKeys("check" + rand.Text())
	account, alive, taken, busy := names.account("a"), names.alive("a"), names.taken("a"), names.busy("a")
	// If the removal fails, the keys expire.
	defer func() { _ = client.Del(ctx, names.stream, account, alive, taken, busy).Err() }()

	const mine, others, keep = "a", "b", 10_000 // two instances; keep is in milliseconds
	var ids []string
	for _, step := range []func() error{
		func() error {
			pipe := client.Pipeline()
			sayAlive(ctx, pipe, names, mine, keep*time.Millisecond)
			_, err := pipe.Exec(ctx)
			return err
		},
		func() error { // two for one account
			for range 2 {
				id, err := acceptScript.Run(ctx, client, []string{names.stream, account}, group, mine, "nothing", batch, keep).Text()
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return nil
		},
		func() error {
			return claimScript.Run(ctx, client, []string{names.stream, account, taken, busy}, group, ids[1], mine, keep).Err()
		},
		func() error {
			_, err := missedBy(ctx, client, names, mine, "0")
			return err
		},
		func() error { return client.XInfoConsumers(ctx, names.stream, group).Err() },
		func() error { // an instance that ended without requests, and one with a request for this instance
			return takeOverScript.Run(ctx, client, []string{names.stream, names.alive(others), taken}, group, others, mine, batch, keep).Err()
		},
		func() error {
			return takeOverScript.Run(ctx, client, []string{names.stream, names.alive(others), taken}, group, mine, others, batch, keep).Err()
		},
		func() error {
			pipe := client.Pipeline()
			endScript.Eval(ctx, pipe, []string{names.stream, account, busy}, group, ids[1], false)
			endScript.Eval(ctx, pipe, []string{names.stream, account, busy}, group, ids[0], true)
			_, err := pipe.Exec(ctx)
			return err
		},
	} {
		if err := step(); err != nil && !errors.Is(err, redis.Nil) {
			return redisclient.Fault(err)
		}
	}
	return nil
}
