//go:build patient

package redisclient

// Patience is long in this build, which is for tests.
const Patience = LongPatience
