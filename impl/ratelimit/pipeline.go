package ratelimit

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// senders is the number of pipelines that may be in flight at once: while one waits for its answer, others
	// take new commands.
	senders = 4

	// maxBatch bounds one pipeline, and so how long its first command waits for
	// the last.
	maxBatch = 256
)

// pipeline sends commands together that come at the same time. One by one, two cores sent 20,000 commands a second: a
// burst of 4,000 parallel requests, which the server allows, took longer than patience, so that a flood alone made a
// healthy Redis look lost. (go-redis has an AutoPipeline, but its callers wait for their batch, and the batches
// before it, beyond their own deadlines.)
type pipeline struct {
	client   redis.UniversalClient
	patience time.Duration
	calls    chan *call
}

// call is one run of the script.
type call struct {
	ctx  context.Context
	run  func(ctx context.Context, c redis.Scripter, keys []string, args ...any) *redis.Cmd
	keys []string
	args []any
	cmd  *redis.Cmd // has the answer when done is closed
	done chan struct{}
}

// newPipeline starts the senders, which end with ctx.
func newPipeline(ctx context.Context, client redis.UniversalClient, patience time.Duration, running *sync.WaitGroup) *pipeline {
	p := &pipeline{client: client, patience: patience, calls: make(chan *call)}
	for range senders {
		running.Go(func() { p.send(ctx) })
	}
	return p
}

// eval runs the script, by its hash if Redis knows that, and waits for the answer until ctx ends.
func (p *pipeline) eval(ctx context.Context, keys []string, args []any) *redis.Cmd {
	cmd := p.do(&call{ctx: ctx, run: script.EvalSha, keys: keys, args: args})
	if err := cmd.Err(); err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		cmd = p.do(&call{ctx: ctx, run: script.Eval, keys: keys, args: args})
	}
	return cmd
}

func (p *pipeline) do(c *call) *redis.Cmd {
	c.done = make(chan struct{})
	select {
	case p.calls <- c:
		select {
		case <-c.done:
			return c.cmd
		case <-c.ctx.Done():
		}
	case <-c.ctx.Done():
	}
	// Not c.cmd, which a sender may still be writing to.
	gaveUp := redis.NewCmd(c.ctx)
	gaveUp.SetErr(c.ctx.Err())
	return gaveUp
}

func (p *pipeline) send(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-p.calls:
			p.exec(ctx, p.collect(first))
		}
	}
}

// collect adds the calls that are waiting.
func (p *pipeline) collect(first *call) []*call {
	batch := []*call{first}
	for len(batch) < maxBatch {
		select {
		case c := <-p.calls:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

func (p *pipeline) exec(ctx context.Context, batch []*call) {
	limited, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	pipe := p.client.Pipeline()
	// A request that has given up is counted in memory, and must not be counted twice.
	batch = slices.DeleteFunc(batch, func(c *call) bool { return c.ctx.Err() != nil })
	for _, c := range batch {
		c.cmd = c.run(limited, pipe, c.keys, c.args...)
	}
	_, err := pipe.Exec(limited)
	for _, c := range batch {
		// Each command has its own error, unless there was no connection for them.
		if err != nil && c.cmd.Err() == nil && c.cmd.Val() == nil {
			c.cmd.SetErr(err)
		}
		close(c.done)
	}
}
