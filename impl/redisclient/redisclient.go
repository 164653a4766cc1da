// Package redisclient opens connections to Redis that give up early, and reduces their errors to
// what may be logged.
//
// It must never let the URL, which may hold a password, a key or an answer of Redis into an error.
package redisclient

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/resetd/resetd/impl/upstream"
)

// dialTimeout is for new connections, which are made in the background: a command does not wait for
// one longer than for its answer.
const dialTimeout = time.Second

// errURL repeats nothing of the URL: what go-redis says of one quotes parts of it, and where a
// password has a slash or an @ in it, parts of that.
var errURL = errors.New("must be redis://[[user]:password@]host[:port][/database], or rediss:// for TLS, with special characters in the password written as %XX")

// CheckURL judges REDIS_URL.
func CheckURL(url string) error {
	_, err := parseURL(url)
	return err
}

func parseURL(url string) (*redis.Options, error) {
	options, err := redis.ParseURL(url)
	if err != nil || !strings.HasPrefix(url, "redis://") && !strings.HasPrefix(url, "rediss://") {
		return nil, errURL
	}
	return options, nil
}

// New returns a client that waits for an answer no longer than timeout, and never tries twice: the
// defaults of go-redis wait and retry for seconds, and ignore a context's deadline. The URL is as
// CheckURL wants it. The client opens at most so many connections.
func New(url string, timeout time.Duration, connections int) (*redis.Client, error) {
	options, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of Redis %w", err)
	}
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1
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
	// go-redis writes to stderr, in a format of its own, each time it cannot connect. It has one
	// logger for the whole process.
	logging.Disable()
	return redis.NewClient(options), nil
}

// Reason returns what may be logged of an error: Redis' own code, or the kind of the fault.
func Reason(err error) string {
	if code := Code(err); code != "" {
		return code
	}
	cause := upstream.Cause(err)
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(err, redis.ErrPoolTimeout) {
		return "no answer in time"
	}
	return cause.Error()
}

// Code returns the code that an error of Redis' own begins with (READONLY, NOAUTH, OOM). The rest of
// its text may quote a key, and a server that is no Redis may say anything, and repeat the password
// that it was sent. It is empty for all other errors.
func Code(err error) string {
	var said redis.Error
	if !errors.As(err, &said) {
		return ""
	}
	code, _, _ := strings.Cut(said.Error(), " ")
	if !plainCode.MatchString(code) {
		return ""
	}
	return code
}

var plainCode = regexp.MustCompile(`^[A-Z]{1,20}$`)
