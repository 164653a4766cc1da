package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// auc is the chance that a random member of one sample is larger than one of another, ties
// counting half, and half the width of its 95 % interval.
type auc struct{ value, half float64 }

func (a auc) String() string { return fmt.Sprintf("%.4f ± %.4f", a.value, a.half) }

// tells says whether 0.5 is outside the interval.
func (a auc) tells() bool { return math.Abs(a.value-0.5) > a.half }

// newAUC compares two sorted samples. The variance is that of DeLong, DeLong and Clarke-Pearson
// (Biometrics 44, 1988): of the share of the other sample that each member exceeds. Unlike
// Hanley and McNeil's it assumes nothing of the distribution, and takes ties as they are.
func newAUC(larger, smaller []time.Duration) auc {
	exceedsSmaller, exceedsLarger := shares(larger, smaller), shares(smaller, larger)
	value, variance := meanAndVariance(exceedsSmaller)
	_, other := meanAndVariance(exceedsLarger)
	return auc{value, 1.96 * math.Sqrt(variance/float64(len(larger))+other/float64(len(smaller)))}
}

// shares says of each value how much of the sorted sample it exceeds, ties counting half.
func shares(values, sample []time.Duration) []float64 {
	result := make([]float64, len(values))
	for i, value := range values {
		below, _ := slices.BinarySearch(sample, value)
		notAbove, _ := slices.BinarySearch(sample, value+1)
		result[i] = float64(below+notAbove) / 2 / float64(len(sample))
	}
	return result
}

func meanAndVariance(values []float64) (mean, variance float64) {
	for _, v := range values {
		mean += v
	}
	mean /= float64(len(values))
	for _, v := range values {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(values)-1)
}
