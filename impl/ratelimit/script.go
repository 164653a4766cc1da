package ratelimit

import (
	"context"
	"encoding/base64"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// script counts a request in all windows of a client, or in none if one is full. KEYS are the keys of the windows,
// ARGV the limit and the open time in milliseconds of each. The answer is 1 if the request is let through, or else 0,
// and then the count and the remaining milliseconds of each window.
//
// A key that has lost its expiry (PERSIST, a restored dump) would limit for ever. The script gives it one again, of a
// whole window at most. The number of the window in each key would do so too, but would make windows depend on the
// clocks of the instances.
var script = redis.NewScript(`
local answer, used = {1}, {}
for i, key in ipairs(KEYS) do
	used[i] = tonumber(redis.call("GET", key) or 0)
	if used[i] >= tonumber(ARGV[2 * i - 1]) then
		answer[1] = 0
	end
end
for i, key in ipairs(KEYS) do
	if answer[1] == 1 then
		used[i] = redis.call("INCR", key)
	end
	local left = redis.call("PTTL", key)
	if left < 0 then
		left = tonumber(ARGV[2 * i])
		redis.call("PEXPIRE", key, left)
	end
	answer[2 * i], answer[2 * i + 1] = used[i], left
end
return answer
`)

// errAnswer says that the script got an answer that Redis does not give.
var errAnswer = errors.New("its answer could not be understood")

// takeShared counts a request in Redis.
func (l *Limiter) takeShared(ctx context.Context, k key) (allowed bool, counts []count, err error) {
	args := make([]any, 0, 2*len(l.rate))
	for _, w := range l.rate {
		args = append(args, w.Limit, w.open().Milliseconds())
	}
	answer, err := l.store.pipeline.eval(ctx, l.keys(k), args).Int64Slice()
	if err != nil {
		return false, nil, err
	}
	if len(answer) != 1+2*len(l.rate) {
		return false, nil, errAnswer
	}
	now := time.Now()
	counts = make([]count, len(l.rate))
	for i := range counts {
		used, left := answer[1+2*i], time.Duration(answer[2+2*i])*time.Millisecond
		counts[i] = count{used, now.Add(left + time.Millisecond)} // Redis counts the last one as inside
	}
	return answer[0] == 1, counts, nil
}

// keys returns the names of a client's windows in Redis. They do not have the limit, so that a changed limit goes on
// with the counts of the old one. The braces keep them on one node of a Cluster, which a script needs.
func (l *Limiter) keys(k key) []string {
	client := base64.RawURLEncoding.EncodeToString(k[:])
	keys := make([]string, len(l.rate))
	for i, w := range l.rate {
		keys[i] = l.store.options.Prefix + ":" + l.name + ":{" + client + "}:" + w.letter()
	}
	return keys
}
