package main

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestAUC compares with values calculated by hand: of the 3 × 2 pairs, the account is later in three, and equal
// in one.
func TestAUC(t *testing.T) {
	var observations []observation
	for i, took := range []time.Duration{1, 3, 5, 3, 2} {
		observations = append(observations, observation{took: took, account: i < 3, cluster: i})
	}
	a := newAUC(observations)
	if want := 3.5 / 6; math.Abs(a.value-want) > 1e-9 {
		t.Errorf("the AUC is %v, want %v", a.value, want)
	}
	// The shares are 0, 3/4 and 1 of the accounts, 1/2 and 2/3 of the unknown addresses.
	theta := 3.5 / 6
	sum := (sq(0-theta)+sq(0.75-theta)+sq(1-theta))/9 + (sq(0.5-theta)+sq(2.0/3-theta))/4
	if want := math.Sqrt(sum * 5 / 4); math.Abs(a.se-want) > 1e-9 {
		t.Errorf("the standard error is %v, want %v", a.se, want)
	}
}

func sq(x float64) float64 { return x * x }

// TestAUCInterval: the 95 % interval contains the true value of samples that do not differ about 95 times in a
// hundred, also if the observations of a cluster are alike.
func TestAUCInterval(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, size := range map[string]int{"independent": 1, "clusters of ten": 10} {
		held := 0
		const rounds = 1000
		for range rounds {
			var observations []observation
			for cluster := range 100 {
				shift := random.NormFloat64()
				for range size {
					took := time.Duration(1e6 * (shift + random.NormFloat64()))
					observations = append(observations, observation{took, cluster%2 == 0, cluster})
				}
			}
			if !newAUC(observations).tells(z95) {
				held++
			}
		}
		if held < 915 || held > 980 {
			t.Errorf("%s: %d of %d intervals contain 0.5", name, held, rounds)
		}
	}
}
