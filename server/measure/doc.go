// Package measure counts and times what happens often, for whoever wants to know how
// a server fares. A count or an observation is one or two atomic additions: no lock,
// no map, no allocation.
//
// [Counters] is a row of counts, [Histogram] a distribution of times. Both are read
// as a whole, while they are written. What they are called, and in which form they
// are shown, is for others: this package knows no library of metrics, so that the
// packages that are measured know none.
package measure
