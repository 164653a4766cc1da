package ratelimit

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/redisclient"
)

const (
	probeInterval = time.Second

	// connections bounds the connections of an instance: one for each sender, and as many again for the probe
	// while those are being dialled.
	connections = 2 * senders
)

// Names for where a Store counts, see [Store.InUse].
const (
	Memory = "memory"
	Redis  = "redis"
)

// Options say where to count, and under which keys.
type Options struct {
	// Redis is the Redis to count in. Nil means memory only.
	Redis *redisclient.Target

	// Prefix begins each key in Redis, for a Redis that others use as well.
	// Instances that share limits share it. Default "resetd".
	Prefix string

	// HashKey is the secret under which clients are hashed: at least 16 bytes, and the same for all instances
	// that share limits. Without Redis it may be empty, and is then random.
	HashKey []byte

	// Logger gets one record of each change between Redis and memory.
	Logger *slog.Logger

	// OnChange, if set, is called after each such change with the name of the store that is now in use.
	OnChange func(inUse string)
}

// Store holds the counts of limiters, in Redis or in memory. While a configured Redis does not work, even at the
// start, limiters count in memory with the same rates, each instance for itself. The store tries Redis about once a
// second, outside of requests. A Redis that is lost repeatedly has to work for longer before it is used again.
//
// Counts are not copied at a change: a client may get its limit once more, per instance. Redis must not evict keys
// (maxmemory-policy noeviction), because a limit is forgotten with its key.
type Store struct {
	options  Options
	hashKey  []byte
	patience time.Duration // redisclient.Patience, except in tests of exactness

	shared atomic.Pointer[shared] // nil while Redis is away

	changing sync.Mutex // changes of shared, so that they are told in their order
	recovery redisclient.Recovery

	// Only with Redis:
	client   *redisclient.Client
	pipeline *pipeline
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// shared stands for Redis from one return to the next loss. Each return makes a new one, so that a request which began
// before a loss cannot report Redis as lost after its return.
type shared struct{ since time.Time }

// Open makes a store. It tries Redis once, so that a working Redis is in use from the first request on, and a broken
// one delays the start by a second or two at most. Its error is a mistake in the options.
func Open(options Options) (*Store, error) { return openPatiently(options, redisclient.Patience) }

func openPatiently(options Options, patience time.Duration) (*Store, error) {
	if options.Prefix == "" {
		options.Prefix = "resetd"
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{options: options, hashKey: options.HashKey, patience: patience}
	if options.Redis == nil {
		if len(s.hashKey) == 0 {
			s.hashKey = []byte(rand.Text())
		}
		return s, nil
	}
	if len(s.hashKey) < 16 {
		return nil, errors.New("limits in Redis need a secret of at least 16 bytes to hash their keys with")
	}
	client := redisclient.New(options.Redis, patience, connections)
	ctx, stop := context.WithCancel(context.Background())
	s.client, s.stop = client, stop
	s.pipeline = newPipeline(ctx, client, patience, &s.running)
	if err := s.probe(ctx); err != nil {
		s.changed(slog.LevelWarn, "Redis does not work: limits are counted in memory, by each instance for itself", Memory, err)
	}
	s.running.Go(func() { s.probeForEver(ctx) })
	return s, nil
}

// Limiter returns a limiter. Its name must be unique, because counts in Redis are found by it.
func (s *Store) Limiter(name string, rate Rate) *Limiter {
	return &Limiter{store: s, name: name, rate: rate, policy: rate.policy(), memory: newMemoryCounters(rate)}
}

// InUse returns where requests are counted now: [Memory] or [Redis].
func (s *Store) InUse() string {
	if s.shared.Load() != nil {
		return Redis
	}
	return Memory
}

// Close ends the connections to Redis. Limiters go on in memory.
func (s *Store) Close() error {
	s.shared.Store(nil)
	if s.client == nil {
		return nil
	}
	s.stop()
	s.running.Wait()
	s.shared.Store(nil) // again: a probe may just have succeeded
	return s.client.Close()
}

// lost changes to memory after Redis has failed a request. Of many requests that fail at the same time, only the first
// call has an effect.
func (s *Store) lost(shared *shared, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.shared.CompareAndSwap(shared, nil) {
		s.recovery.Lost()
		s.changed(slog.LevelWarn, "Redis is lost: limits are counted in memory, by each instance for itself", Memory, err)
	}
}

func (s *Store) probeForEver(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.shared.Load() == nil {
				_ = s.probe(ctx) // the loss has been logged
			}
		}
	}
}

// probe takes Redis into use if it works.
func (s *Store) probe(ctx context.Context) error {
	err := s.try(ctx)
	s.changing.Lock()
	defer s.changing.Unlock()
	if err != nil {
		s.recovery.Failed()
		return err
	}
	if s.recovery.Works() {
		s.shared.Store(&shared{time.Now()})
		s.changed(slog.LevelInfo, "Redis works: limits are shared through it", Redis, nil)
	}
	return nil
}

func (s *Store) try(ctx context.Context) error {
	keys, err := probeKeys(ctx, s.client, s.options.Prefix+":probe:")
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.patience/(redisclient.Patience/redisclient.MaxRoundTrip))
	defer cancel()
	return countOnce(limited, s.client, keys, probeInterval)
}

// probeKeys returns a key on each node that has keys of requests. It connects to the nodes, so that the probe's time
// has no dialling in it. The client's own timeouts bound it.
func probeKeys(ctx context.Context, client *redisclient.Client, prefix string) ([]string, error) {
	err := client.Nodes(ctx, func(ctx context.Context, node redis.UniversalClient) error { return script.Load(ctx, node).Err() })
	if err != nil {
		return nil, err
	}
	return client.Spread(ctx, prefix)
}

// countOnce counts each key as a request does: a Redis that is read-only, or full, still answers a PING, and the other
// nodes of a Cluster answer while one does not.
func countOnce(ctx context.Context, client redis.UniversalClient, keys []string, open time.Duration) error {
	pipe := client.Pipeline()
	for _, key := range keys {
		// The limit is never reached, because a refusal writes nothing.
		script.EvalSha(ctx, pipe, []string{key}, maxLimit, open.Milliseconds())
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (s *Store) changed(level slog.Level, message, inUse string, err error) {
	attrs := []slog.Attr{slog.String("limits_in", inUse)}
	if err != nil {
		attrs = append(attrs, slog.String("reason", redisclient.Reason(err)))
	}
	s.options.Logger.LogAttrs(context.Background(), level, message, attrs...)
	if s.options.OnChange != nil {
		s.options.OnChange(inUse)
	}
}
