//go:build !patient

package redisclient

import "time"

// Patience bounds the wait for Redis of one command, or of all commands of one request together. The promise is 250 ms;
// the rest is the time in which a busy machine notices.
const Patience = 220 * time.Millisecond
