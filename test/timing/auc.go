package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// observation is the time of one answer.
type observation struct {
	took    time.Duration
	account bool // whether the request before, or the timed request, was for an account
	cluster int  // observations of the same cluster depend on each other
}

// auc is the probability that the answer for a random account came later than that for a random unknown address,
// with its standard error. Ties count half.
type auc struct{ value, se float64 }

// These are quantiles of the normal distribution, for intervals of 95 % and 99.9 %.
const (
	z95  = 1.960
	z999 = 3.291
)

// half is half the width of the 95 % interval.
func (a auc) half() float64 { return z95 * a.se }

// tells says whether the interval does not contain 0.5.
func (a auc) tells(z float64) bool { return math.Abs(a.value-0.5) > z*a.se }

func (a auc) String() string { return fmt.Sprintf("%.4f ± %.4f", a.value, a.half()) }

// newAUC compares accounts with unknown addresses. The variance is that of DeLong, DeLong and Clarke-Pearson
// (Biometrics 44, 1988), from the share of the other sample that each member exceeds. Unlike that of Hanley and
// McNeil it assumes no distribution, and handles ties. Observations of one cluster count together (Obuchowski,
// Biometrics 53, 1997).
func newAUC(observations []observation) auc {
	accounts, unknown := split(observations)
	if len(accounts) == 0 || len(unknown) == 0 {
		return auc{math.NaN(), math.NaN()}
	}
	var a auc
	for _, took := range accounts {
		a.value += share(took, unknown) / float64(len(accounts))
	}
	clusters := map[int]float64{}
	for _, o := range observations {
		if o.account {
			clusters[o.cluster] += (share(o.took, unknown) - a.value) / float64(len(accounts))
		} else {
			clusters[o.cluster] += (1 - share(o.took, accounts) - a.value) / float64(len(unknown))
		}
	}
	var sum float64
	for _, deviation := range clusters {
		sum += deviation * deviation
	}
	n := float64(len(clusters))
	a.se = math.Sqrt(sum * n / (n - 1))
	return a
}

// split returns the times of both kinds, sorted.
func split(observations []observation) (accounts, unknown []time.Duration) {
	for _, o := range observations {
		if o.account {
			accounts = append(accounts, o.took)
		} else {
			unknown = append(unknown, o.took)
		}
	}
	slices.Sort(accounts)
	slices.Sort(unknown)
	return accounts, unknown
}

// share returns how much of the sorted sample a value exceeds, ties counting half.
func share(value time.Duration, sample []time.Duration) float64 {
	below, _ := slices.BinarySearch(sample, value)
	notAbove, _ := slices.BinarySearch(sample, value+1)
	return float64(below+notAbove) / 2 / float64(len(sample))
}
