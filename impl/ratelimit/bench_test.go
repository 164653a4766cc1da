package ratelimit

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/resetd/resetd/impl/redisclient/redistest"
)

// What a request costs: one that is let through, and the refusal of a flood
// from one address, which is the 429 path.
func BenchmarkTake(b *testing.B) {
	stores := map[string]func(testing.TB) *Store{
		Memory: func(tb testing.TB) *Store { return open(tb, Options{}) },
		Redis:  func(tb testing.TB) *Store { return open(tb, Options{Redis: target(tb, redistest.Start(tb).URL())}) },
	}
	for _, in := range []string{Memory, Redis} {
		b.Run(in+"/allowed", func(b *testing.B) {
			limiter := stores[in](b).Limiter("ip", mustRate(b, "1000000000-M,1000000000-H"))
			b.ReportAllocs()
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					limiter.Take(b.Context(), fmt.Sprint(n.Add(1)%10_000))
				}
			})
			wantInUse(b, limiter.store, in)
		})
		b.Run(in+"/refused", func(b *testing.B) {
			limiter := stores[in](b).Limiter("ip", mustRate(b, "5-M,30-H"))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					limiter.Take(b.Context(), "192.0.2.1")
				}
			})
			wantInUse(b, limiter.store, in)
		})
	}
}
