package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
)

// People are addresses that are each asked for once. Who has an account is drawn by a hash that the
// stand-ins know too, so nothing in a request tells them apart, and nobody knows who comes next.
type People struct {
	Seed uint64
	last atomic.Int64
}

// Next returns an address of either kind.
func (p *People) Next() (address string, account bool) {
	number := int(p.last.Add(1))
	return fmt.Sprintf("person%09d@example.com", number), hasAccount(p.Seed, number)
}

// Of returns an address of one kind.
func (p *People) Of(account bool) string {
	for {
		if address, is := p.Next(); is == account {
			return address
		}
	}
}

func hasAccount(seed uint64, number int) bool {
	drawn := binary.BigEndian.AppendUint64(nil, seed)
	drawn = binary.BigEndian.AppendUint64(drawn, uint64(number))
	return sha256.Sum256(drawn)[0]&1 == 1
}

// isAccount reads an address. Those of the probes are nobody's.
func isAccount(seed uint64, address string) bool {
	digits, found := strings.CutPrefix(strings.TrimSuffix(address, "@example.com"), "person")
	number, err := strconv.Atoi(digits)
	return found && err == nil && hasAccount(seed, number)
}
