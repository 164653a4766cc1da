package outbox

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl"
	"github.com/resetd/resetd/impl/redisclient"
)

const (
	patience = redisclient.Patience
	// lease is the time without a sign of life after which an instance loses its requests to others. It is
	// longer than a restart of Redis, or a stall of a very busy machine.
	lease = 15 * time.Second
	// beatEvery is the time between signs of life, and between tries of a lost Redis. Redis is in use again once
	// it answers within redisclient.MaxRoundTrip.
	beatEvery = time.Second
	// removeAgain is the pause before a failed removal from Redis is tried again.
	removeAgain = 250 * time.Millisecond
	// batch bounds the entries of one command or pipeline.
	batch = 100
	// connections bounds the connections. Commands take about 0.1 ms each.
	connections = 12
	// busyPause is the wait of a request while another instance tries an older one for the account.
	busyPause = 500 * time.Millisecond
)

// SharedConfig has the settings of an outbox in Redis, beside those of Config.
type SharedConfig struct {
	Config
	Redis   *redisclient.Target
	Project string // requests are delivered by instances of the same project
	// Key encrypts requests (AES-256-GCM, 32 bytes). Instances of a project share it.
	Key []byte
	// Fingerprint returns the keyed hash under which Redis sees an account.
	Fingerprint func(account string) string
	Keep        time.Duration // after which a request that nobody has delivered leaves Redis
	Attempt     time.Duration // the longest time of an attempt
	// Changed is called when Redis comes into use, and when it is lost, with the reason.
	Changed func(inRedis bool, reason string)
	// Unreadable is called for each request that was encrypted with another key, and dropped.
	Unreadable func()
	// TakenOver is called with the number of requests that were taken over from an instance that has ended.
	TakenOver func(number int)
	// Left is called with the number of requests that Close has left in Redis.
	Left func(number int)
}

// Shared is an outbox that keeps requests in Redis until they are delivered, so that they survive their instance.
// Its methods may be called concurrently.
//
// Each request is an entry of a stream, and pending for the instance that accepted it in the stream's consumer
// group. That instance schedules it in its memory, by an Outbox. An instance without a sign of life for the time of
// a lease loses its entries to another. While Redis is lost, requests are accepted into memory alone, and earlier
// ones are delivered nevertheless: twice is better than not at all.
type Shared struct {
	config SharedConfig
	memory *Outbox
	client *redisclient.Client
	cipher cipher.AEAD
	me     string // the name of this instance in the group
	keys   keys

	changing sync.Mutex // changes of inRedis, so that they are told in their order
	recovery redisclient.Recovery
	inRedis  atomic.Bool
	beaten   atomic.Int64 // when the last sign of life was given, in nanoseconds since 1970
	back     time.Time    // when Redis came back after an outage; for beat alone
	missed   atomic.Bool  // this instance may have entries that it does not know
	kept     atomic.Int64 // requests that Close has left in Redis

	mu    sync.Mutex
	held  map[string]bool      // ids of entries that are in memory
	ended map[string]time.Time // ids of entries that have ended, and when they were removed; zero: not yet
	// unsure has the tokens of requests that may be in Redis, and are in memory without their id, and
	// since when; zero: Redis is being asked.
	unsure map[string]time.Time

	ends   chan *shared
	cancel context.CancelFunc
	beats  sync.WaitGroup
	enders sync.WaitGroup
}

// sealed is the encrypted content of an entry. Its token is random, because clients may choose the ids of their
// requests, and use an id twice.
type sealed struct {
	Token   string
	Request impl.Request
}

// keys makes the names of keys in Redis. Their common tag keeps them on one node of a Cluster.
type keys struct{ stream, prefix string }

func newKeys(project string) keys {
	prefix := "resetd:{" + project + "}:"
	return keys{stream: prefix + "requests", prefix: prefix}
}

func (k keys) account(fingerprint string) string { return k.prefix + "account:" + fingerprint }
func (k keys) busy(fingerprint string) string    { return k.prefix + "busy:" + fingerprint }
func (k keys) alive(instance string) string      { return k.prefix + "alive:" + instance }
func (k keys) taken(instance string) string      { return k.prefix + "taken:" + instance }

const group = "deliveries"

// OpenShared starts an outbox in Redis. Its error is a mistake in the configuration; a Redis that does not work
// gives no error.
func OpenShared(config SharedConfig) (*Shared, error) {
	block, err := aes.NewCipher(config.Key)
	if err != nil {
		return nil, fmt.Errorf("the key of requests in Redis: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("the key of requests in Redis: %w", err)
	}
	s := &Shared{
		config: config, client: redisclient.New(config.Redis, patience, connections), cipher: aead, me: rand.Text(), memory: New(config.Config),
		keys: newKeys(config.Project),
		held: map[string]bool{}, ended: map[string]time.Time{}, unsure: map[string]time.Time{},
		ends: make(chan *shared, config.MaxPending),
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if err := s.join(ctx); err != nil {
		s.config.Changed(false, redisclient.Reason(err))
	} else {
		s.back = time.Time{} // it was there before
	}
	s.beats.Go(func() { s.beat(ctx) })
	s.enders.Go(s.end)
	return s, nil
}

// Admit lets one request in, by the number that this instance has let in, like Admit of Outbox.
func (s *Shared) Admit() error { return s.memory.Admit() }

// Put takes a request that was let in, into Redis and memory, or into memory alone.
func (s *Shared) Put(ctx context.Context, request impl.Request) error {
	d := &shared{outbox: s, Delivery: s.config.Begin(request), account: s.config.Fingerprint(request.Account())}
	if s.inRedis.Load() {
		d.id = s.accept(ctx, d.account, &request)
	}
	e := newEntry(&request, d)
	if d.id == "" {
		e.delivery = d.Delivery
	}
	err := s.memory.keep(e)
	if err != nil && d.id != "" {
		d.remove() // the caller is told that it was not accepted
	}
	return err
}

// Pending returns the number of requests that this instance has not delivered yet, and when the oldest was
// accepted.
func (s *Shared) Pending() (number int, oldest time.Time) { return s.memory.Pending() }

// Close delivers like Close of Outbox. Requests that are left stay in Redis, for other instances or the next start.
// Only those in memory alone are lost, and its error has their number.
func (s *Shared) Close(ctx context.Context) error {
	s.cancel()
	s.beats.Wait()
	left := s.memory.close(ctx)
	close(s.ends)
	s.enders.Wait()
	last, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = s.client.Del(last, s.keys.alive(s.me)).Err() // it goes by itself within a lease
	_ = s.client.Close()                             // nothing is lost with its connections
	kept := int(s.kept.Load())
	if kept > 0 {
		s.config.Left(kept)
	}
	return leftError(left - kept)
}

// acceptScript adds an entry for an instance, and notes it as the newest of its account. It returns the entry's id,
// or nothing if the stream is full. The group exists unless Redis was emptied.
//
// KEYS: stream, account. ARGV: group, instance, encrypted request, most entries, milliseconds to keep.
var acceptScript = redis.NewScript(`
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then return '' end
local id = redis.call('XADD', KEYS[1], '*', 'request', ARGV[3])
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'FORCE', 'JUSTID')
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('HINCRBY', KEYS[2], 'pending', 1)
redis.call('HSET', KEYS[2], 'newest', id)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return id
`)

// accept writes a request to Redis, and returns the id of its entry; empty if Redis does not have it, or may not
// have it.
func (s *Shared) accept(ctx context.Context, account string, request *impl.Request) (id string) {
	token := rand.Text()
	plain, err := json.Marshal(sealed{token, *request})
	if err != nil {
		return ""
	}
	encrypted := s.cipher.Seal(nil, nil, plain, nil) //nolint:gosec // NewGCMWithRandomNonce makes the nonce
	s.mu.Lock()
	s.unsure[token] = time.Time{}
	s.mu.Unlock()
	// Whether the client still waits for its answer makes no difference.
	limited, answered := redisclient.Wait(ctx, patience)
	id, err = acceptScript.Run(limited, s.client, []string{s.keys.stream, s.keys.account(account)},
		group, s.me, encrypted, s.config.MaxPending, s.config.Keep.Milliseconds()).Text()
	answered()
	s.mu.Lock()
	if err == nil {
		delete(s.unsure, token)
		if id != "" {
			s.held[id] = true
		}
	} else {
		s.unsure[token] = time.Now()
	}
	s.mu.Unlock()
	if err != nil {
		s.lost(err)
		return ""
	}
	return id
}

func (s *Shared) decrypt(payload string) (*sealed, error) {
	plain, err := s.cipher.Open(nil, nil, []byte(payload), nil)
	if err != nil {
		return nil, err
	}
	opened := &sealed{}
	return opened, json.Unmarshal(plain, opened)
}

// lost makes the outbox go on in memory, unless the error is no loss of Redis: a command got no connection in time,
// or a Cluster is moving the keys.
func (s *Shared) lost(err error) {
	if errors.Is(err, redis.ErrPoolTimeout) || redisclient.IsMoving(err) {
		return
	}
	s.missed.Store(true)
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.inRedis.CompareAndSwap(true, false) {
		s.recovery.Lost()
		s.config.Changed(false, redisclient.Reason(err))
	}
}

// join gives a sign of life, and makes the stream and the group. It writes as a request does, because a Redis that
// is read-only, or full, still answers a PING.
func (s *Shared) join(ctx context.Context) error {
	if !s.inRedis.Load() {
		// A Cluster may have its keys elsewhere since. The client's own timeouts bound it.
		if err := s.client.Nodes(ctx, func(context.Context, redis.UniversalClient) error { return nil }); err != nil {
			return s.stillLost(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	pipe := s.client.Pipeline()
	alive, created := sayAlive(ctx, pipe, s.keys, s.me, s.config.Keep)
	_, _ = pipe.Exec(ctx) // each command has its own error
	if err := alive.Err(); err != nil {
		return s.stillLost(err)
	}
	if err := created.Err(); err != nil && redisclient.Code(err) != "BUSYGROUP" {
		return s.stillLost(err)
	}
	s.beaten.Store(began.UnixNano())
	if s.inRedis.Load() {
		return nil
	}
	if took := time.Since(began); took > redisclient.MaxRoundTrip {
		return s.stillLost(context.DeadlineExceeded)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.recovery.Works() {
		s.back = began
		s.inRedis.Store(true)
		s.config.Changed(true, "")
	}
	return nil
}

// sayAlive gives a sign of life, and makes the stream.
func sayAlive(ctx context.Context, pipe redis.Pipeliner, names keys, instance string, keep time.Duration) (alive, created *redis.StatusCmd) {
	alive = pipe.Set(ctx, names.alive(instance), 1, lease)
	created = pipe.XGroupCreateMkStream(ctx, names.stream, group, "0")
	pipe.PExpire(ctx, names.stream, keep)
	return alive, created
}

func (s *Shared) stillLost(err error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.recovery.Failed()
	return err
}

// beat gives signs of life, and takes over the requests of instances that have ended.
func (s *Shared) beat(ctx context.Context) {
	for ; ctx.Err() == nil; sleep(ctx, beatEvery) {
		if err := s.join(ctx); err != nil {
			s.lost(err)
			continue
		}
		if !s.inRedis.Load() {
			continue // it has to work for longer
		}
		s.forgetOld()
		if s.missed.Swap(false) {
			if err := s.readMissed(ctx); err != nil {
				s.lost(err)
				continue
			}
		}
		// After an outage of Redis, all instances need the time of a lease to beat again.
		if time.Since(s.back) > lease {
			if err := s.takeOver(ctx); err != nil {
				s.lost(err)
			}
		}
	}
}

// remembered is the time for which an instance remembers entries that it has removed from Redis, and requests that
// may be in Redis and in memory. A killed Redis loses its last second or two (appendfsync everysec).
const remembered = time.Minute

// forgetOld forgets entries after that time.
func (s *Shared) forgetOld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	isOld := func(_ string, since time.Time) bool { return !since.IsZero() && time.Since(since) > remembered }
	maps.DeleteFunc(s.ended, isOld)
	maps.DeleteFunc(s.unsure, isOld)
}

// takeOverScript assigns the entries of an instance without a sign of life to another. It leaves a note for the
// case that the instance wakes up, and removes an instance without entries. XCLAIM drops entries that are no longer
// in the stream.
//
// KEYS: stream, alive, taken. ARGV: group, the instance, the instance that takes over, most entries,
// milliseconds to keep the note.
var takeOverScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[2]) == 1 then return {} end
local left = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[2])
if #left == 0 then
	redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
	return {}
end
redis.call('SET', KEYS[3], 1, 'PX', ARGV[5])
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0}
for _, entry in ipairs(left) do table.insert(claim, entry[1]) end
local taken = {}
for _, entry in ipairs(redis.call(unpack(claim))) do
	if entry then
		table.insert(taken, entry[1])
		table.insert(taken, entry[2][2])
	end
end
return taken
`)

func (s *Shared) takeOver(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	instances, err := s.client.XInfoConsumers(limited, s.keys.stream, group).Result()
	cancel()
	for _, instance := range instances {
		if instance.Name == s.me {
			continue
		}
		for taken := batch; err == nil && taken == batch; {
			taken, err = s.takeFrom(ctx, instance.Name)
		}
	}
	return err
}

// takeFrom takes over at most a batch from an instance.
func (s *Shared) takeFrom(ctx context.Context, instance string) (taken int, err error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	entries, err := takeOverScript.Run(limited, s.client, []string{s.keys.stream, s.keys.alive(instance), s.keys.taken(instance)},
		group, instance, s.me, batch, s.config.Keep.Milliseconds()).StringSlice()
	for i := 0; i+1 < len(entries); i += 2 {
		s.hold(ctx, entries[i], entries[i+1])
	}
	if taken = len(entries) / 2; taken > 0 {
		s.config.TakenOver(taken)
	}
	return taken, err
}

// readMissed reads the entries that are pending for this instance, because it may have lost the answer with one.
func (s *Shared) readMissed(ctx context.Context) error {
	for from := "0"; ; {
		limited, cancel := context.WithTimeout(ctx, patience)
		streams, err := missedBy(limited, s.client, s.keys, s.me, from)
		cancel()
		if errors.Is(err, redis.Nil) || err == nil && (len(streams) == 0 || len(streams[0].Messages) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, entry := range streams[0].Messages {
			payload, _ := entry.Values["request"].(string) // empty if the entry was removed
			s.hold(ctx, entry.ID, payload)
			from = entry.ID
		}
	}
}

// missedBy returns a batch of the entries that are pending for an instance.
func missedBy(ctx context.Context, client redis.UniversalClient, names keys, instance, from string) ([]redis.XStream, error) {
	return client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: group, Consumer: instance, Streams: []string{names.stream, from}, Count: batch, Block: -1,
	}).Result()
}

// hold puts an entry of this instance into memory, unless it is there.
func (s *Shared) hold(ctx context.Context, id, payload string) {
	d := &shared{outbox: s, id: id}
	opened, err := s.decrypt(payload)
	s.mu.Lock()
	held := s.held[id]
	_, over := s.ended[id]
	var since time.Time
	var unsure bool
	if err == nil {
		since, unsure = s.unsure[opened.Token]
	}
	isNew := !held && !over && !unsure && err == nil
	if isNew {
		s.held[id] = true
	}
	s.mu.Unlock()
	if err == nil {
		d.account = s.config.Fingerprint(opened.Request.Account())
	}
	switch {
	case isNew:
		d.Delivery = s.config.Begin(opened.Request)
		select {
		case s.memory.adopted <- newEntry(&opened.Request, d):
		case <-ctx.Done(): // it stays in Redis
			s.drop(id)
		}
	case held, unsure && since.IsZero(): // accept is about to hold it
	default: // its removal was lost, it is in memory without its id, or nobody can read it
		if err != nil && payload != "" && !over {
			s.config.Unreadable()
		}
		d.remove()
	}
}

// drop forgets an entry that stays in Redis.
func (s *Shared) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, id)
}

// endScript removes an entry, and with the last entry of an account the account's key. If the newest entry was not
// tried to its end, the account has no newest entry any more: of two requests at the same moment, memory and Redis
// may take different ones for the newest.
//
// KEYS: stream, account, busy. ARGV: group, entry, 1 if it was tried to its end.
var endScript = redis.NewScript(`
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('GET', KEYS[3]) == ARGV[2] then redis.call('DEL', KEYS[3]) end
if redis.call('XDEL', KEYS[1], ARGV[2]) == 1 and redis.call('EXISTS', KEYS[2]) == 1 then
	if redis.call('HINCRBY', KEYS[2], 'pending', -1) <= 0 then
		redis.call('DEL', KEYS[2])
	elseif ARGV[3] == '0' and redis.call('HGET', KEYS[2], 'newest') == ARGV[2] then
		redis.call('HDEL', KEYS[2], 'newest')
	end
end
return 1
`)

// end removes ended entries from Redis, in the background. It goes on trying while Redis is lost, until Close.
func (s *Shared) end() {
	for d := range s.ends {
		work := []*shared{d}
		for len(work) < batch && len(s.ends) > 0 {
			work = append(work, <-s.ends)
		}
		for tries := 0; s.endAll(work) != nil; tries++ {
			if len(s.ends) == cap(s.ends) || s.isClosing() && tries > 0 {
				break // they may be delivered again, which is better than to hang
			}
			time.Sleep(removeAgain)
		}
	}
}

func (s *Shared) endAll(work []*shared) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pipe := s.client.Pipeline()
	for _, d := range work {
		endScript.Eval(ctx, pipe, []string{s.keys.stream, s.keys.account(d.account), s.keys.busy(d.account)}, group, d.id, d.tried)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		s.lost(err)
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range work {
		s.ended[d.id] = time.Now()
	}
	return nil
}

func (s *Shared) isClosing() bool {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	return s.memory.closed
}

// shared is the delivery of an entry in Redis.
type shared struct {
	Delivery
	outbox  *Shared
	id      string // of the entry
	account string // fingerprint; empty where the entry could not be read
	tried   bool   // whether it was tried to its end
}

// claimScript decides whether an instance may try an entry now. It returns "go"; "gone" if another instance has the
// entry or has ended it; "replaced" if a newer entry of the account has ended, or is another instance's; or "busy"
// if another entry of the account is being tried. Between its own entries an instance decides in memory. An entry
// that is neither there nor taken was lost by Redis, so the answer is "go".
//
// KEYS: stream, account, taken, busy. ARGV: group, entry, instance, milliseconds of an attempt.
var claimScript = redis.NewScript(`
local owner = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
if not owner then
	if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
	return 'go'
end
if owner[2] ~= ARGV[3] then return 'gone' end
local newest = redis.call('HGET', KEYS[2], 'newest')
if newest and newest ~= ARGV[2] then
	local other = redis.call('XPENDING', KEYS[1], ARGV[1], newest, newest, 1)[1]
	if not other or other[2] ~= ARGV[3] then return 'replaced' end
end
local busy = redis.call('GET', KEYS[4])
if busy and busy ~= ARGV[2] then return 'busy' end
redis.call('SET', KEYS[4], ARGV[2], 'PX', ARGV[4])
return 'go'
`)

// Try makes one attempt, unless Redis says that the entry is not this instance's any more.
func (d *shared) Try(ctx context.Context) (pause time.Duration, again bool) {
	s := d.outbox
	switch d.claim(ctx) {
	case "gone":
		s.drop(d.id)
		return 0, false
	case "replaced":
		d.End(impl.Suppressed, errReplaced)
		return 0, false
	case "busy":
		return busyPause, true
	}
	if pause, again = d.Delivery.Try(ctx); !again {
		d.tried = true
		d.remove()
	}
	return pause, again
}

// claim returns the verdict of claimScript; empty without an answer.
func (d *shared) claim(ctx context.Context) (verdict string) {
	s := d.outbox
	var err error
	if s.inRedis.Load() {
		if verdict, err = d.claimOnce(ctx); err == nil {
			return verdict
		}
	}
	// After a long stop of this process its command has timed out, and others have taken its entries over: it
	// must not go on without an answer.
	if time.Since(time.Unix(0, s.beaten.Load())) > lease/2 {
		verdict, err = d.claimOnce(ctx)
	}
	if err != nil && redisclient.Code(err) != "NOGROUP" && ctx.Err() == nil {
		s.lost(err)
	}
	return verdict
}

func (d *shared) claimOnce(ctx context.Context) (verdict string, err error) {
	s := d.outbox
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return claimScript.Run(ctx, s.client, []string{s.keys.stream, s.keys.account(d.account), s.keys.taken(s.me), s.keys.busy(d.account)},
		group, d.id, s.me, s.config.Attempt.Milliseconds()).Text()
}

// End reports the outcome, unless another instance will.
func (d *shared) End(outcome impl.EventKind, reason error) {
	if errors.Is(reason, errStopped) {
		d.outbox.kept.Add(1)
		return
	}
	d.Delivery.End(outcome, reason)
	d.remove()
}

// remove hands the entry to end, which removes it from Redis.
func (d *shared) remove() {
	s := d.outbox
	s.mu.Lock()
	delete(s.held, d.id)
	s.ended[d.id] = time.Time{}
	s.mu.Unlock()
	s.ends <- d
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
