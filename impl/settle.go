package impl

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errAlone marks a fault that met one address while others were served. Nobody but the
// operator may learn of it.
var errAlone = errors.New("for this address alone")

// isShown says whether a fault is one that every address meets, so that the caller may know.
func isShown(err error) bool { return err != nil && !errors.Is(err, errAlone) }

// A question is put to an upstream.
type question[T any] func(ctx context.Context) (T, error)

// settle asks a question about one address. If it fails, or is not answered within patience,
// it asks the control question: the same about nobody. A fault is shown only if the control
// question meets it too; it is the control question's fault that is shown then, as it has
// nothing to do with the address. Otherwise the error is errAlone, and rest waits for the
// first answer if that is still to come.
//
// Where due is given, a first answer that was an error, and no timeout, is followed by the
// verdict of the control question within due() or counts as errAlone: else the address that
// met the error alone would be told by the time that the verdict took.
//
// Both questions are asked in the same way for every address, so addresses with and without
// an account show a failure in exactly the same circumstances (H1).
func settle[T any](ctx context.Context, patience time.Duration, due func() time.Duration, ask, control question[T]) (value T, rest question[T], err error) {
	first := start(ctx, ask)
	impatient := time.NewTimer(patience)
	defer impatient.Stop()

	var firstErr error
	var overdue <-chan time.Time // never, unless failed sets it
	pending := first
	failed := func(err error) {
		firstErr, pending = err, nil
		if due != nil && !errors.Is(err, context.DeadlineExceeded) {
			overdue = time.After(due())
		}
	}
	select {
	case reply := <-first:
		if reply.err == nil {
			return reply.value, nil, nil
		}
		failed(reply.err)
	case <-impatient.C:
		firstErr = fmt.Errorf("no answer within %v", patience)
	}

	check := start(ctx, control)
	for {
		select {
		case reply := <-pending:
			if reply.err == nil {
				return reply.value, nil, nil
			}
			failed(reply.err)
		case <-overdue:
			return value, ask, fmt.Errorf("%w, as far as was known in time: %w", errAlone, firstErr)
		case verdict := <-check:
			if verdict.err == nil {
				return value, resume(first, pending != nil, ask), fmt.Errorf("%w: %w", errAlone, firstErr)
			}
			// Nobody is served: what the first call may still bring is all there is.
			if pending != nil {
				if reply := <-pending; reply.err == nil {
					return reply.value, nil, nil
				}
			}
			return value, nil, verdict.err
		}
	}
}

// resume is the question, beginning with the answer that is still under way, if one is.
func resume[T any](first <-chan reply[T], pending bool, ask question[T]) question[T] {
	return func(ctx context.Context) (T, error) {
		if pending {
			pending = false
			reply := <-first // every call has a deadline of its own
			return reply.value, reply.err
		}
		return ask(ctx)
	}
}

type reply[T any] struct {
	value T
	err   error
}

// start asks in a goroutine. The channel holds the reply even if nobody waits for it.
func start[T any](ctx context.Context, ask question[T]) <-chan reply[T] {
	replies := make(chan reply[T], 1)
	go func() {
		var r reply[T]
		defer func() {
			// A panic here would end the process; the server recovers only its own goroutines.
			// Its value may hold anything, so only its type is kept (H7).
			if p := recover(); p != nil {
				r.err = fmt.Errorf("panic: %T", p)
			}
			replies <- r
		}()
		r.value, r.err = ask(ctx)
	}()
	return replies
}
