package redisclient

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/resetd/resetd/impl/upstream"
)

// RefusedError is an error answer of Redis. Code is its first word: NOAUTH, READONLY, OOM. (The rest may quote a key.)
type RefusedError struct {
	Code string
	// BySentinel says that a Sentinel has refused to name the primary.
	BySentinel bool
}

func (e *RefusedError) Error() string {
	if e.BySentinel {
		return "a Sentinel says " + e.Code
	}
	return "it says " + e.Code
}

// WrongModeError says that a server is of another kind than the URL says. Mode is the server's word for it:
// standalone, cluster or sentinel.
type WrongModeError struct{ Mode string }

func (e *WrongModeError) Error() string { return "it is of the kind " + e.Mode }

// ErrUnknownName says that the Sentinels do not monitor a primary of the URL's name.
var ErrUnknownName = errors.New("the Sentinels do not know that name")

// Fault returns an error that an operator may be told: a *RefusedError, ErrUnknownName or one of upstream.Cause. It
// repeats nothing of the URL.
func Fault(err error) error {
	if errors.Is(err, redis.Nil) {
		return ErrUnknownName
	}
	if code := Code(err); code != "" {
		return &RefusedError{Code: code}
	}
	return upstream.Cause(err)
}

// Mode returns the kind that the first answering server of the URL says it is: standalone, cluster or sentinel. It is
// empty for a server that does not answer as Redis does, such as a proxy. With Sentinels it asks the primary too. Its
// error is one of Fault, or a *WrongModeError if the URL is for another kind: only a node of a Cluster that has all
// keys may be used as a single Redis.
func (t *Target) Mode(ctx context.Context, timeout time.Duration) (mode string, err error) {
	for _, address := range t.options.Addrs {
		if mode, err = t.modeOf(ctx, address, timeout); err == nil || Code(err) != "" || errors.Is(err, redis.Nil) {
			break
		}
	}
	refused := new(RefusedError)
	switch fault := Fault(err); {
	case err != nil && t.Kind == Sentinel && errors.As(fault, &refused):
		return "", &RefusedError{refused.Code, true}
	case err != nil:
		return "", fault
	case mode != "" && (mode == "sentinel") != (t.Kind == Sentinel), mode == "standalone" && t.Kind == Cluster:
		return mode, &WrongModeError{mode}
	}
	return mode, nil
}

func (t *Target) modeOf(ctx context.Context, address string, timeout time.Duration) (mode string, err error) {
	one := *t
	one.Kind = Single
	one.options.Addrs, one.options.DB = []string{address}, 0
	if t.Kind == Sentinel {
		one.options.Username, one.options.Password = t.options.SentinelUsername, t.options.SentinelPassword
	}
	client := New(&one, timeout, 1)
	defer func() { _ = client.Close() }() // nothing is lost with its connection
	hello := redis.NewMapStringInterfaceCmd(ctx, "hello")
	err = client.Process(ctx, hello)
	if code := Code(err); code == "ERR" || code == "NOPERM" {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	mode, _ = hello.Val()["mode"].(string)
	if mode == "sentinel" && t.Kind == Sentinel {
		err = client.Do(ctx, "sentinel", "get-master-addr-by-name", t.options.MasterName).Err()
	}
	return mode, err
}
