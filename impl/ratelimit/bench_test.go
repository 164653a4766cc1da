package ratelimit

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkTake measures what a request costs, admitted or refused, as in a flood from one address.
func BenchmarkTake(b *testing.B) { benchmarkTake(b, open(b, Options{})) }

func benchmarkTake(b *testing.B, store *Store) {
	b.Helper()
	in := store.InUse()
	b.Run(in+"/allowed", func(b *testing.B) {
		limiter := store.Limiter("ip", mustRate(b, "1000000000-M,1000000000-H"))
		b.ReportAllocs()
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				limiter.Take(b.Context(), fmt.Sprint(n.Add(1)%10_000))
			}
		})
		wantInUse(b, store, in)
	})
	b.Run(in+"/refused", func(b *testing.B) {
		limiter := store.Limiter("recipient", mustRate(b, "5-M,30-H"))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				limiter.Take(b.Context(), "192.0.2.1")
			}
		})
		wantInUse(b, store, in)
	})
}

// BenchmarkTurn measures how long the request waits that ends a full generation.
func BenchmarkTurn(b *testing.B) {
	for range b.N {
		b.StopTimer()
		m := newMemoryCounters(Rate{{5, time.Hour}})
		flood(m, 0, ownKeys)
		m.born = m.born.Add(-time.Hour)
		b.StartTimer()
		m.take(newcomer)
	}
}
