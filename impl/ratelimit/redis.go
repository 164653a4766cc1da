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

	// connections is how many one instance opens at most: one for each sender,
	// and as many to spare, for the probe while those are being dialled.
	connections = 2 * senders
)

// Names for where a Store counts, see [Store.InUse].
const (
	Memory = "memory"
	Redis  = "redis"
)

// Options say where to count.
type Options struct {
	// Redis is where to count. Nil means memory only.
	Redis *redisclient.Target

	// Prefix begins each key in Redis, for a Redis that others use as well.
	// Instances that share limits share it. Default "resetd".
	Prefix string

	// HashKey is the secret under which identities are hashed, at least 16
	// bytes and the same for all instances that share limits. It may be left
	// out without Redis: then it is random.
	HashKey []byte

	// Logger hears about each change between Redis and memory, once.
	Logger *slog.Logger

	// OnChange, if set, is called after each such change with what is in use
	// from now on, for a metric.
	OnChange func(inUse string)
}

// Store is where limiters count. While Redis is configured but does not work,
// and so possibly from the start, they count in memory with the same rates,
// each instance for itself; about once a second it is tried, by nobody's
// request, whether Redis works again. One that is lost again and again has to
// work for longer before.
//
// The counts of one side are not carried over to the other: at each change a
// client may get its limit once more, per instance. Redis must not evict keys
// (maxmemory-policy noeviction): a key that is evicted is a limit forgotten.
type Store struct {
	options  Options
	hashKey  []byte
	patience time.Duration // only tests of exactness have more of it

	shared atomic.Pointer[shared] // nil while Redis is away

	changing sync.Mutex // changes of shared, so that they are told in their order
	recovery redisclient.Recovery

	// Only with Redis:
	client   *redisclient.Client
	pipeline *pipeline
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// shared is Redis from when it came until it is lost. That each time has its
// own makes sure that a request which began before Redis was lost does not
// lose it again after it came back.
type shared struct{ since time.Time }

// Open makes a store. It asks Redis for a moment, so that a Redis that works
// is in use from the first request on, and one that does not delays the start
// by a second or two at most. An error is a mistake in the options.
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

// Limiter returns the limiter of that name, which must be one of a kind: its
// counts in memory are its own, and those in Redis are found by the name.
func (s *Store) Limiter(name string, rate Rate) *Limiter {
	return &Limiter{store: s, name: name, rate: rate, policy: rate.policy(), memory: newMemoryCounters(rate)}
}

// InUse says where requests are counted now: [Memory] or [Redis].
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

// lost is what a request calls that Redis failed. Only the first one of many
// at the same time finds anything to do.
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
				_ = s.probe(ctx) // that it is away has been logged
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

// probeKeys returns a key on each node that requests' keys are on, and makes connections to them that
// are ready for what is timed. The client's own timeouts bound it.
func probeKeys(ctx context.Context, client *redisclient.Client, prefix string) ([]string, error) {
	err := client.Nodes(ctx, func(ctx context.Context, node redis.UniversalClient) error { return script.Load(ctx, node).Err() })
	if err != nil {
		return nil, err
	}
	return client.Spread(ctx, prefix)
}

// countOnce does what a request does, for each key: a Redis that is read-only, or full, answers a PING,
// and a Cluster's other nodes answer while one does not.
func countOnce(ctx context.Context, client redis.UniversalClient, keys []string, open time.Duration) error {
	pipe := client.Pipeline()
	for _, key := range keys {
		// A limit that is never reached, because a refusal writes nothing.
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
