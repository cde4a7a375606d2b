// Package metrics shows how a server fares in the form that Prometheus reads: the
// names, the labels, what each metric is for, and the page that a scrape gets.
//
// It is the only package that knows the library of Prometheus. What happens often is
// counted where it happens, by package measure or by a field, and read here when
// somebody scrapes: a call then pays one or two additions, looks nothing up, and the
// packages that count know of no library. What happens seldom, a commit or the run of
// a job, is told to a [Metrics] by the wiring and counted here.
//
// A [Metrics] has a registry of its own; nothing is registered globally. No value
// comes from a caller: labels are words of tables in the program, such as the codes of
// verifications or the methods of the services, so their number is bounded, and no
// key, owner, label, organization, url or path is ever among them.
//
// A scrape reads counters and takes short locks. What has to be asked of the database
// is asked by a job every few seconds, whose result a scrape finds: see
// [Metrics.SetBacklog].
package metrics
