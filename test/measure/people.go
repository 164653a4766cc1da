package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
)

// People are addresses, each for one request. A hash, which the stand-ins know too, draws which of them have
// accounts, so nothing in a request tells them apart, and nobody knows who comes next.
type People struct {
	Seed uint64
	last atomic.Int64
}

// Next returns an address of either kind.
func (p *People) Next() (address string, account bool) {
	number := int(p.last.Add(1))
	return fmt.Sprintf("person%09d@example.com", number), hasAccount(p.Seed, number)
}

// Of returns an address of the given kind.
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

// isAccount says whether an address has an account. The addresses of the probes have none.
func isAccount(seed uint64, address string) bool {
	digits, found := strings.CutPrefix(strings.TrimSuffix(address, "@example.com"), "person")
	number, err := strconv.Atoi(digits)
	return found && err == nil && hasAccount(seed, number)
}
