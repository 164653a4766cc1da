//go:build !full

package e2e

// full says whether all tests are wanted, also those that need a real Redis or minutes.
const full = false
