package check

import (
	"context"
	"errors"
	"fmt"

	"github.com/resetd/resetd/impl/outbox"
	"github.com/resetd/resetd/impl/ratelimit"
	"github.com/resetd/resetd/impl/redisclient"
	"github.com/resetd/resetd/impl/upstream"
)

// redis counts in Redis as the limits do, and keeps a request there as the outbox does.
func (c *checker) redis(ctx context.Context) (found findings) {
	target := c.Redis
	switch {
	case target == nil && c.Platform != "":
		found.add(risky, aboutRedis, "REDIS_URL is not set, and this is %s, where there is often more than one instance; how many of this one, cannot be told from here. With several, each client has its limit once per instance, and what one has accepted is lost with it. What to do: set REDIS_URL, or run one instance and no more", c.Platform)
		return found
	case target == nil:
		found.add(noted, aboutRedis, "REDIS_URL is not set: limits are per instance, and begin again with each start; right for one instance")
		return found
	}
	if target.Unverified {
		found.add(risky, aboutRedis, "REDIS_URL has skip_verify: anybody on the way can play Redis, read the password and lift the limits. What to do: remove it, and give the certificate of its authority in REDIS_CA_FILE")
	}
	const inMemory = "each instance would count limits for itself"
	pong, err := ratelimit.Ping(ctx, target, c.Supabase.Timeout)
	kept := err
	if err == nil && pong.RoundTrip <= redisclient.MaxRoundTrip {
		kept = outbox.Ping(ctx, target, c.Supabase.Timeout)
	}
	switch {
	case err != nil:
		found.add(bad, aboutRedis, "%s", redisSays(target, err, "no count can be kept", inMemory))
	case kept != nil:
		found.add(bad, aboutRedis, "%s", redisSays(target, kept, "no request can be kept", "a crash would lose what is accepted"))
	case pong.RoundTrip > redisclient.MaxRoundTrip:
		found.add(bad, aboutRedis, "a count takes %s, and beyond %s %s. What to do: use a Redis in the same region", millis(pong.RoundTrip), millis(redisclient.MaxRoundTrip), inMemory)
	case pong.Evicts != "":
		found.add(risky, aboutRedis, "counts are kept (%s), but its maxmemory-policy is %s, and a key that it evicts is a limit forgotten. What to do: set maxmemory-policy noeviction", millis(pong.RoundTrip), pong.Evicts)
	case pong.Mode == "cluster" && target.Kind == redisclient.Single:
		found.add(risky, aboutRedis, "counts are kept (%s), but it is the only node of a Cluster, and no longer works once there is a second. What to do: %s", millis(pong.RoundTrip), asCluster)
	default:
		found.add(good, aboutRedis, "counts and requests are kept there (%s)", millis(pong.RoundTrip))
	}
	return found
}

// redisSays returns what is wrong, its consequence, and what to do.
func redisSays(target *redisclient.Target, err error, refusal, consequence string) string {
	var refused *redisclient.RefusedError
	var mode *redisclient.WrongModeError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("%s (%v), and %s. What to do: %s", refusal, err, consequence, redisAdvice(target, refused))
	case errors.As(err, &mode):
		return fmt.Sprintf("%s (REDIS_URL is written for %s, and leads to %s), and %s. What to do: %s", refusal, target.Kind, modeNames[mode.Mode], consequence, modeAdvice[mode.Mode])
	case errors.Is(err, redisclient.ErrUnknownName):
		return fmt.Sprintf("%s (%v), and %s. What to do: write the name that they monitor as master_name in REDIS_URL (redis-cli -p 26379 SENTINEL MASTERS lists them)", refusal, err, consequence)
	default:
		return fmt.Sprintf("it cannot be reached (%s), and %s. What to do: %s", plainCause(err), consequence, reachAdvice(target, err))
	}
}

// These are the forms of REDIS_URL for each kind of Redis.
const (
	asSingle    = "write redis://user:password@host:6379/0 in REDIS_URL, without master_name and addr"
	asSentinels = "write redis://host:26379?master_name=NAME&password=PASSWORD in REDIS_URL, with addr=host:26379 for each further Sentinel"
	asCluster   = "write redis://user:password@host:6379?addr=host:6379 in REDIS_URL, with addr for each further node that resetd may ask first (one is enough, and may be the same)"
)

// modeNames and modeAdvice have the name and the advice for each kind that a server may report.
var (
	modeNames  = map[string]string{"sentinel": "a Sentinel's port", "cluster": "a node of a Cluster", "standalone": "a single Redis"}
	modeAdvice = map[string]string{"sentinel": asSentinels, "cluster": asCluster, "standalone": asSingle}
)

// redisAdvice has the advice for error codes: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
func redisAdvice(target *redisclient.Target, refused *redisclient.RefusedError) string {
	switch refused.Code {
	case "NOAUTH", "WRONGPASS":
		switch {
		case refused.BySentinel:
			return "check the user and the password of the Sentinels, which stand before the @ in REDIS_URL"
		case target.Kind == redisclient.Sentinel:
			return "check the user and the password of Redis, which are username and password after the ? in REDIS_URL: what stands before the @ is for the Sentinels"
		}
		return "check user and password in REDIS_URL (redis://user:password@host; special characters as %XX)"
	case "NOPERM":
		if refused.BySentinel {
			return "let that user of the Sentinels run these commands (ACL SETUSER NAME allchannels " + sentinelRights + ")"
		}
		return "let that user run these commands on keys that begin with resetd: (ACL SETUSER NAME ~resetd:* " + leastRights + ")"
	case "READONLY":
		if target.Kind == redisclient.Sentinel {
			return "the Sentinels name a replica: wait for the end of a fail-over, and try again"
		}
		return "REDIS_URL leads to a replica: give the address of the primary, or of its Sentinels (" + asSentinels + ")"
	case "OOM":
		return "it is full: raise maxmemory, or clear out what does not belong there"
	case "MOVED", "ASK", "CROSSSLOT":
		return "REDIS_URL leads to a node of a Cluster: " + asCluster
	case "CLUSTERDOWN":
		return "the Cluster has slots that no node serves: redis-cli --cluster check HOST:6379 says which"
	case "MASTERDOWN":
		return "its primary cannot be reached: wait for the end of a fail-over, and try again"
	case "ERR":
		return "check the number of the database in REDIS_URL (redis://host/0), and whether Redis takes more connections"
	case "LOADING":
		return "it is starting: try again in a minute"
	case "MISCONF":
		return "it cannot write to its disk, and takes no writes until it can"
	}
	return "look up that code in Redis's own log"
}

// reachAdvice returns the advice for a failed connection.
func reachAdvice(target *redisclient.Target, err error) string {
	switch {
	case errors.Is(err, upstream.ErrUnknownAuthority) && target.HasCA:
		return "REDIS_CA_FILE has the certificate of another authority: give it the certificate of the authority that signed Redis' certificate, or all of a file that has several"
	case errors.Is(err, upstream.ErrUnknownAuthority):
		return "give the certificate of its authority in REDIS_CA_FILE; for a certificate that signed itself, that certificate"
	case errors.Is(err, upstream.ErrOtherName):
		return "write a host in REDIS_URL that the certificate is for, or give Redis a certificate for that host (subjectAltName)"
	case errors.Is(err, upstream.ErrExpired):
		return "renew its certificate, or set this machine's clock"
	case errors.Is(err, upstream.ErrTLSRefused) && target.HasClientCert:
		return "Redis does not take the certificate in REDIS_CLIENT_CERT_FILE: give a certificate that is not expired, and is signed by an authority of its tls-ca-cert-file"
	case errors.Is(err, upstream.ErrTLSRefused):
		return "Redis asks for a client's certificate: give one in REDIS_CLIENT_CERT_FILE, and its key in REDIS_CLIENT_KEY_FILE"
	}
	return "check host and port in REDIS_URL, rediss:// where it wants TLS and redis:// where it does not, and whether this machine may connect to it"
}

// leastRights are the rights that a user of Redis needs, on keys that begin with resetd:. docs/operations.md repeats
// them.
const leastRights = "+evalsha +eval +script|load +get +set +del +exists +incr +pttl +pexpire +hget +hset +hdel +hincrby " +
	"+xadd +xlen +xack +xdel +xclaim +xpending +xreadgroup +xgroup|create +xgroup|delconsumer +xinfo|consumers +select +cluster|slots"

// sentinelRights are the rights that a user of the Sentinels needs.
const sentinelRights = "+sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe +ping"
