//go:build start_at_once

package outbox

import "time"

// maxStart is off in this build, which `make timing` uses to show that it would see the difference.
const maxStart = time.Nanosecond
