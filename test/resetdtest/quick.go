//go:build !full

package resetdtest

// Full says whether all tests are wanted, also those that need a real Redis or minutes.
const Full = false
