// Package redisclient opens connections to Redis that give up early, and reduces their errors to
// what may be logged.
//
// It must never let the URL, which may hold a password, a key or an answer of Redis into an error.
package redisclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/resetd/resetd/impl/upstream"
)

// dialTimeout bounds the making of a connection, in the background: a command waits for a connection no longer than for
// its answer.
const dialTimeout = time.Second

// Client is a client of Redis of any kind.
type Client struct {
	redis.UniversalClient
	cluster *redis.ClusterClient // nil where it is none
}

// New returns a client that waits for an answer no longer than timeout, and never tries twice: go-redis by default
// waits and retries for seconds, and ignores a context's deadline. connections bounds the connections, to each node of
// a Cluster.
func New(target *Target, timeout time.Duration, connections int) *Client {
	options := target.options
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1
	options.MinRetryBackoff, options.MaxRetryBackoff = -1, -1 // a redirection is followed at once
	options.DialTimeout = dialTimeout
	options.DialerRetries = 1
	options.ReadTimeout = timeout
	options.WriteTimeout = timeout
	options.PoolTimeout = timeout
	options.PoolSize = connections
	options.PipelinePoolSize = -1
	// Messages here are some hundred bytes; the default is 32 KiB twice.
	options.ReadBufferSize = 4 << 10
	options.WriteBufferSize = 4 << 10
	// Neither is of any use here, and each costs a new connection a round trip.
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case target.Dial != nil:
		options.Dialer = target.Dial
	case target.tls != nil:
		options.Dialer = target.dialTLS
	}
	// go-redis writes to stderr, in a format of its own, each time it cannot connect. It has one
	// logger for the whole process.
	logging.Disable()
	switch target.Kind {
	case Sentinel:
		return &Client{UniversalClient: redis.NewFailoverClient(options.Failover())}
	case Cluster:
		cluster := options.Cluster()
		// It would ask for the description of all commands, and wait for it for 5 s, whatever the
		// context says.
		cluster.DisableRoutingPolicies = true
		client := redis.NewClusterClient(cluster)
		client.AddHook(once{})
		return &Client{client, client}
	default:
		return &Client{UniversalClient: redis.NewClient(options.Simple())}
	}
}

// dialTLS connects to a server with a certificate for its own address, or for the host of the URL: the nodes of a
// Cluster, and primaries of Sentinels, are mostly given as IP addresses, and have certificates for a common name.
func (t *Target) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	conn, err := t.dialAs(ctx, host, network, address)
	if host != t.host && errors.As(err, new(x509.HostnameError)) {
		return t.dialAs(ctx, t.host, network, address)
	}
	return conn, err
}

func (t *Target) dialAs(ctx context.Context, name, network, address string) (net.Conn, error) {
	config := t.tls.Clone()
	config.ServerName = name
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: t.dialTimeout}, Config: config}
	return dialer.DialContext(ctx, network, address)
}

// once keeps a ClusterClient from sending a command again that Redis may have executed. It still follows redirections.
type once struct{}

// DialHook implements redis.Hook.
func (once) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (once) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error { return next(ctx, onlyOnce{command}) }
}

// ProcessPipelineHook implements redis.Hook.
func (once) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		all := make([]redis.Cmder, len(commands))
		for i, command := range commands {
			all[i] = onlyOnce{command}
		}
		return next(ctx, all)
	}
}

type onlyOnce struct{ redis.Cmder }

// NoRetry implements redis.Cmder.
func (onlyOnce) NoRetry() bool { return true }

// Nodes calls a function for each node with keys, at the same time. It first asks a Cluster for its nodes.
func (c *Client) Nodes(ctx context.Context, do func(context.Context, redis.UniversalClient) error) error {
	if c.cluster == nil {
		return do(ctx, c.UniversalClient)
	}
	return c.cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return do(ctx, node) })
}

// spread is the number of keys that are tried to see whether one server has all keys. A node with half of a Cluster's
// keys has all of these with a probability of 1 in 65,536.
const spread = 16

// maxSpread bounds the search for a key on each node. A node that the search misses has less than a thousandth of all
// keys.
const maxSpread = 4096

// Spread returns keys that begin with a prefix, at least one for each node with keys.
func (c *Client) Spread(ctx context.Context, prefix string) (keys []string, err error) {
	key := func(i int) string { return prefix + "{" + strconv.Itoa(i) + "}" }
	if c.cluster == nil {
		for i := range spread {
			keys = append(keys, key(i))
		}
		return keys, nil
	}
	var nodes atomic.Int64
	count := func(context.Context, *redis.Client) error { nodes.Add(1); return nil }
	if err := c.cluster.ForEachMaster(ctx, count); err != nil {
		return nil, err
	}
	seen := map[*redis.Client]bool{}
	for i := 0; i < maxSpread && int64(len(seen)) < nodes.Load(); i++ {
		node, err := c.cluster.MasterForKey(ctx, key(i))
		if err != nil {
			return nil, err // a slot that no node has
		}
		if !seen[node] {
			seen[node] = true
			keys = append(keys, key(i))
		}
	}
	return keys, nil
}

// Reason returns a text that may be logged of an error: Redis' own code, or the kind of the fault.
func Reason(err error) string {
	if code := Code(err); code != "" {
		return code
	}
	if errors.Is(err, redis.Nil) {
		return "the Sentinels do not know that name" // no command here has such an answer otherwise
	}
	cause := upstream.Cause(err)
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout) {
		return "no answer in time"
	}
	return cause.Error()
}

// IsMoving reports whether an error only says that a Cluster is moving keys to another node. Until all of a command's
// keys have arrived, the command is refused.
func IsMoving(err error) bool { return Code(err) == "TRYAGAIN" }

// Code returns the code with which an error answer of Redis begins (READONLY, NOAUTH, OOM), and "" for other errors. The
// rest of the text may quote a key, and a server that is no Redis may repeat the password.
func Code(err error) string {
	var said redis.Error
	if !errors.As(err, &said) {
		return ""
	}
	text := said.Error()
	if strings.HasPrefix(text, "ERR ") && strings.Contains(text, aclInScript) || strings.Contains(text, aclInScript6) {
		return "NOPERM"
	}
	code, _, _ := strings.Cut(text, " ")
	if !plainCode.MatchString(code) {
		return ""
	}
	return code
}

// The answers of Redis 7 and Redis 6.2 about a command in a script that its user may not run.
const (
	aclInScript  = "ACL failure in script"
	aclInScript6 = "The user executing the script can't run this command"
)

var plainCode = regexp.MustCompile(`^[A-Z]{1,20}$`)
