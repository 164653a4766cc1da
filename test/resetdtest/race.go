//go:build race

package resetdtest

// RaceEnabled says whether the test has the race detector.
const RaceEnabled = true
