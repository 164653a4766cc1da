package server

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/resetd/resetd/gen"
)

// beat is when one request is answered: a whole number of quanta after it began, so that the
// time of an answer tells no more than in which quantum it was decided (H1).
type beat struct {
	quantum time.Duration
	began   time.Time
	at      time.Time // zero until decided
}

// next is the first whole number of quanta after began that is not before now.
func next(began time.Time, quantum time.Duration, now time.Time) time.Time {
	quanta := int64((now.Sub(began) + quantum - 1) / quantum)
	return began.Add(time.Duration(max(quanta, 1)) * quantum)
}

// decide fixes the beat, once, and says how long it is until then.
func (b *beat) decide() time.Duration {
	now := time.Now()
	if b.at.IsZero() {
		b.at = next(b.began, b.quantum, now)
	}
	return b.at.Sub(now)
}

// wait holds no thread and ends at once when the client goes away.
func (b *beat) wait(ctx context.Context) {
	timer := time.NewTimer(b.decide())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

type beatKey struct{}

// Decide fixes the instant at which the request of ctx is answered, at the next beat, and says
// how long that is from now. What is decided later than that no longer moves it.
func Decide(ctx context.Context) time.Duration {
	b, ok := ctx.Value(beatKey{}).(*beat)
	if !ok {
		return 0
	}
	return b.decide()
}

// onTheBeat delays whatever the operation has decided: answers, errors and panics alike.
func onTheBeat(quantum time.Duration, observer *Observer) gen.StrictMiddlewareFunc {
	return func(next gen.StrictHandlerFunc, _ string) gen.StrictHandlerFunc {
		if quantum == 0 {
			return next
		}
		return func(c echo.Context, request any) (response any, err error) {
			r := recordOf(c.Request().Context())
			b := &beat{quantum: quantum, began: r.began}
			ctx := context.WithValue(c.Request().Context(), beatKey{}, b)
			c.SetRequest(c.Request().WithContext(ctx))
			err = observer.recovered(func() error {
				response, err = next(c, request)
				return err
			}, r)
			b.wait(ctx)
			return response, err
		}
	}
}
