package measure

import "sync/atomic"

// stripes is how many copies of a row there are. Processors that count the same thing
// at the same time would else wait for each other's caches.
const stripes = 8

// Counters is a row of counts, by index. Its methods are safe for concurrent use.
type Counters struct {
	rows [stripes][]atomic.Uint64
}

// NewCounters returns a row of n counts, all zero.
func NewCounters(n int) *Counters {
	c := new(Counters)
	for i := range c.rows {
		// A cache line on either side keeps the rows off each other's.
		const line = 8
		row := make([]atomic.Uint64, n+2*line)
		c.rows[i] = row[line : line+n : line+n]
	}
	return c
}

// Add adds n to the count at index. random is any bits: calls that come at the same
// time should differ in the lowest of them, which spreads them over the copies.
func (c *Counters) Add(index int, n uint64, random uint32) {
	c.rows[random%stripes][index].Add(n)
}

// Value returns the count at index.
func (c *Counters) Value(index int) (sum uint64) {
	for i := range c.rows {
		sum += c.rows[i][index].Load()
	}
	return sum
}
