package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/apikeys-dev/apikeys/server/api"
	"github.com/apikeys-dev/apikeys/server/deliver"
	"github.com/apikeys-dev/apikeys/server/identity"
	"github.com/apikeys-dev/apikeys/server/verify"
)

// What is read when somebody scrapes.
var (
	verifications = desc("apikeys_verifications_total", "Verifications by what they came to and how they came: over gRPC, over REST, in a batch, as the credential of a call, or for a gateway that asks over HTTP (gate) or as Envoy does (ext_authz). A rise of not_found or malformed is somebody guessing or a client with an old secret; unavailable is the storage.", "way", "code")
	verifyTime    = desc("apikeys_verification_seconds", "How long verifications took inside the server, without the network; of a batch, the whole. What waits for storage is timed always, of what is answered from memory one in 64, counted as 64. Above a millisecond at the median, look at the misses of the cache and at the processor.", "way")

	cacheEntries   = desc("apikeys_cache_entries", "Secrets that are in memory.")
	cacheCapacity  = desc("apikeys_cache_capacity", "Secrets that may be in memory.")
	cacheHits      = desc("apikeys_cache_hits_total", "Verifications that were answered from memory.")
	cacheMisses    = desc("apikeys_cache_misses_total", "Verifications that had to read storage: of keys that were not in memory, and of units of quotas. Many with a full cache mean that more keys are in use than fit.")
	cacheDrops     = desc("apikeys_cache_drops_total", "Secrets that were dropped from memory since their keys changed.")
	cacheEvictions = desc("apikeys_cache_evictions_total", "Secrets that had to make room for others. Steady ones mean that more keys are in use than fit.")
	cacheReads     = desc("apikeys_cache_reads", "Reads of keys that wait or are under way. Many mean that storage is slow or that somebody tries secrets.")

	calls       = desc("apikeys_calls_total", "Calls by method, by the protocol that they came over, and by code. Codes other than OK appear once they have happened. INTERNAL and UNAVAILABLE are for you, the others are mostly the callers'.", "method", "protocol", "code")
	callTime    = desc("apikeys_call_seconds", "How long calls took, from before their credential was looked at until their answer was ready; not how long it took to send that. Streams are not in it.", "method")
	refusals    = desc("apikeys_authentication_failures_total", "Calls that were refused before anything of them was read, by the reason of the answer. A rise of unauthenticated is a client with a bad credential, or somebody guessing; the log has the address.", "reason")
	streams     = desc("apikeys_streams", "Streams of events that are open.")
	streamEnds  = desc("apikeys_streams_ended_total", "Streams of events that ended, by why. slow_client and too_many are clients to talk to; unavailable is the storage.", "reason")
	connections = desc("apikeys_connections", "Connections that are open at the listeners for callers. Near connections_max, those without a good credential are closed and callers may be refused.")
	inFlight    = desc("apikeys_calls_in_flight", "Calls of callers that are under way. Near calls_max, calls are refused with TOO_MANY_CALLS.")
	answerBytes = desc("apikeys_answer_bytes", "Bytes of answers that clients have not taken yet. Near answer_bytes_max, calls are refused with ANSWERS_UNREAD.")

	identityTokens  = desc("apikeys_identity_tokens_total", "Access tokens of people and workloads by what they came to. meaningless ones are genuine and give no rights here: look at the settings of their issuer; refused ones prove nothing; unavailable ones could not be checked.", "result")
	identityFetches = desc("apikeys_identity_key_fetches_total", "Times that the keys of an OpenID Connect issuer were fetched, by what came of it. Many are tokens with unknown key ids.", "result")
	identityFailing = desc("apikeys_identity_issuers_failing", "OpenID Connect issuers whose keys could not be fetched the last time. An hour after the last fetch that went well their tokens are answered with UNAVAILABLE.")

	feedPosition = desc("apikeys_feed_position", "The position of the log up to which this replica has read. It is the same on all replicas but for the lag.")
	feedBehind   = desc("apikeys_feed_behind", "How many positions of the log this replica knows of and has not read. More than a moment above 0, watchers are late.")
	feedLag      = desc("apikeys_feed_lag_seconds", "How old this replica's knowledge of the log is. On SQLite 0, since each commit tells at once. Above 0.8 verifications read the database.")
	feedBroken   = desc("apikeys_feed_broken", "1 while the log cannot be read: watchers wait and nothing is verified from memory alone on PostgreSQL. Look at the database and the log of the server.")

	attempts        = desc("apikeys_webhook_attempts_total", "Attempts to deliver by what they came to: acknowledged, the class of the failure, or cut_off by a stop. One failing endpoint is its owner's; if all fail, look at the way out of this machine.", "outcome")
	attemptTime     = desc("apikeys_webhook_attempt_seconds", "How long attempts to deliver took.")
	attemptsOpen    = desc("apikeys_webhook_attempts_in_flight", "Attempts to deliver that are under way.")
	endpoints       = desc("apikeys_webhooks", "Webhooks that this replica has something to deliver to, or had lately, by how their endpoints fare.", "health")
	healthChanges   = desc("apikeys_webhook_health_changes_total", "Webhooks whose endpoints began to fail or recovered, and those that the server disabled. Disabled ones get nothing until their owners enable them: the log names them.", "change")
	pending         = desc("apikeys_deliveries_pending", "Deliveries that have not ended, those that wait for another try included; 100000 stands for more. As of the last look, a few seconds ago.")
	oldestPending   = desc("apikeys_deliveries_oldest_pending_seconds", "How long ago the oldest delivery was made that has not ended. Up to the whole schedule of tries where an endpoint fails; beyond it nothing is sent.")
	fanOutOrgs      = desc("apikeys_fanout_organizations_behind", "Organizations with events that do not have all of their deliveries yet.")
	fanOutLag       = desc("apikeys_fanout_lag_seconds", "How old the oldest event is that does not have all of its deliveries. Beyond webhooks_max_behind the changes of its organization wait, and are refused.")
	fanOutPositions = desc("apikeys_fanout_lag_positions", "How many positions of the log lie between that event and the newest. As of the last look, a few seconds ago.")
	backlogAge      = desc("apikeys_backlog_look_timestamp_seconds", "When the database was last asked what waits, in Unix time. If it does not move, the database does not answer.")

	quotaAsks      = desc("apikeys_quota_reservations_total", "Times that a block of a quota was asked of storage, by what came of it. Many with few verifications mean quotas near their end.", "result")
	quotaUnits     = desc("apikeys_quota_units_total", "Units of quotas that were reserved, given back unspent, or lost since they could not be given back.", "event")
	meterKeys      = desc("apikeys_meter_keys", "Keys with counters in memory.")
	usageUnflushed = desc("apikeys_usage_unflushed_keys", "Keys with usage that is not stored yet, which a crash would lose. Above the keys used in a second, storing fails: look at apikeys_usage_flushes_total.")
	usageFlushes   = desc("apikeys_usage_flushes_total", "Times that usage was stored, by what came of it. What could not be stored is kept and tried again.", "result")
	recordsDropped = desc("apikeys_refusals_dropped_total", "Refused uses of keys that are counted and missing from the record of their key, since more were refused in a second than are held. It grows in a flood of refusals alone.")
	usageFlushed   = desc("apikeys_usage_last_flush_timestamp_seconds", "When usage was last stored, in Unix time; 0 for never.")

	ready  = desc("apikeys_ready", "1 if the server was ready at its last look at itself, a few seconds ago; /readyz looks anew and says why not.")
	leases = desc("apikeys_lease_held", "1 while this replica does the work that one replica does at a time: jobs, the periodic ones, and fan_out, making the deliveries of events. The sum over the replicas is 1 but for some seconds after one dies; if it stays 0, the work is not done.", "lease")

	poolOpen     = desc("apikeys_database_connections", "Open connections to the database by pool and by whether they are in use.", "pool", "state")
	poolMost     = desc("apikeys_database_connections_max", "Connections that a pool may have.", "pool")
	poolWaits    = desc("apikeys_database_connection_waits_total", "Times that somebody waited for a connection of a pool. The writer's are changes in turn; those of loads mean many misses of the cache.", "pool")
	poolWaitTime = desc("apikeys_database_connection_wait_seconds_total", "How long was waited for connections of a pool in all.", "pool")
	fileSize     = desc("apikeys_database_file_bytes", "How large the files of an SQLite database are. A wal that grows and grows is held by a reader that does not end.", "file")
)

// collector shows what is read from sources when somebody scrapes.
type collector struct {
	sources Sources
	metrics *Metrics
}

var _ prometheus.Collector = (*collector)(nil)

// Describe describes everything.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		verifications, verifyTime,
		cacheEntries, cacheCapacity, cacheHits, cacheMisses, cacheDrops, cacheEvictions, cacheReads,
		calls, callTime, refusals, streams, streamEnds, connections, inFlight, answerBytes,
		identityTokens, identityFetches, identityFailing,
		feedPosition, feedBehind, feedLag, feedBroken,
		attempts, attemptTime, attemptsOpen, endpoints, healthChanges, pending, oldestPending,
		fanOutOrgs, fanOutLag, fanOutPositions, backlogAge,
		quotaAsks, quotaUnits, meterKeys, usageUnflushed, usageFlushes, usageFlushed, recordsDropped,
		ready, leases, poolOpen, poolMost, poolWaits, poolWaitTime, fileSize,
	} {
		to <- d
	}
}

// scrape is one reading of everything.
type scrape chan<- prometheus.Metric

// Collect reads everything.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := scrape(to)
	s.verifications(c.sources.Verifications, c.sources.Cache())
	s.calls(c.sources.Calls)
	s.listeners(c.sources.Listeners())
	s.identity(c.sources.Identity())
	s.feed(c.sources.Feed())
	s.webhooks(c.sources.Attempts, c.sources.Endpoints())
	s.backlog(c.metrics, c.sources.FanOut())
	s.meter(&c.sources)
	s.database(&c.sources)
	s.gauge(ready, truth(c.sources.Ready()))
	for name, held := range c.sources.Leases() {
		s.gauge(leases, truth(held), name)
	}
}

func (s scrape) gauge(d *prometheus.Desc, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func (s scrape) count(d *prometheus.Desc, value uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix is a time as a gauge has it: 0 for the zero time.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

func (s scrape) verifications(o *verify.Observations, cache verify.CacheStats) {
	var hits, misses uint64
	for _, way := range verify.Ways() {
		for _, code := range verify.Outcomes() {
			memory, waited := o.Count(way, code)
			s.count(verifications, memory+waited, way.String(), string(code))
			misses += waited
			if code != "malformed" { // Of junk nothing is looked up.
				hits += memory
			}
		}
		s <- newHistogram(verifyTime, o.Took(way), way.String())
	}
	s.gauge(cacheEntries, float64(cache.Entries))
	s.gauge(cacheCapacity, float64(cache.Most))
	s.count(cacheHits, hits)
	s.count(cacheMisses, misses)
	s.count(cacheDrops, cache.Dropped)
	s.count(cacheEvictions, cache.Evicted)
	s.gauge(cacheReads, float64(cache.Reads))
}

func (s scrape) calls(o *api.Observations) {
	for _, m := range o.Methods() {
		name := strings.TrimPrefix(m.Name, "/")
		for i, protocol := range []string{"grpc", "rest"} {
			for _, code := range api.Codes() {
				if n := m.Count(code, i == 1); n > 0 || code == codes.OK {
					s.count(calls, n, name, protocol, code.String())
				}
			}
		}
		if !m.Stream {
			s <- newHistogram(callTime, m.Took(), name)
		}
	}
	for _, reason := range api.RefusalReasons() {
		s.count(refusals, o.Refused(reason), strings.ToLower(string(reason)))
	}
	s.gauge(streams, float64(o.Streams()))
	for _, why := range api.StreamEnds() {
		s.count(streamEnds, o.Ended(why), string(why))
	}
}

func (s scrape) listeners(l Listeners) {
	s.gauge(connections, float64(l.Connections))
	s.gauge(inFlight, float64(l.Calls))
	s.gauge(answerBytes, float64(l.AnswerBytes))
}

func (s scrape) identity(i identity.Stats) {
	for _, result := range identity.Results() {
		s.count(identityTokens, i.Tokens[result], result.String())
	}
	s.count(identityFetches, i.Fetches-i.Failures, "ok")
	s.count(identityFetches, i.Failures, "failed")
	s.gauge(identityFailing, float64(i.Failing))
}

func (s scrape) feed(f FeedStatus) {
	s.gauge(feedPosition, float64(f.Position))
	s.gauge(feedBehind, float64(f.Behind))
	s.gauge(feedLag, f.Lag.Seconds())
	s.gauge(feedBroken, truth(f.Broken))
}

func (s scrape) webhooks(o *deliver.Observations, e deliver.Endpoints) {
	for _, outcome := range deliver.AttemptOutcomes() {
		s.count(attempts, o.Attempts(outcome), string(outcome))
	}
	s <- newHistogram(attemptTime, o.Took())
	for _, change := range deliver.HealthChanges() {
		s.count(healthChanges, o.Changes(change), change)
	}
	s.gauge(attemptsOpen, float64(e.InFlight))
	s.gauge(endpoints, float64(e.Healthy), "healthy")
	s.gauge(endpoints, float64(e.Unknown), "unknown")
	s.gauge(endpoints, float64(e.Failing), "failing")
}

// backlog shows what waits. Until the database was asked for the first time, what only
// it knows is left out.
func (s scrape) backlog(m *Metrics, lag deliver.FanOutLag) {
	s.gauge(fanOutOrgs, float64(lag.Organizations))
	s.gauge(fanOutLag, lag.Oldest.Seconds())
	m.mu.Lock()
	b := m.backlog
	m.mu.Unlock()
	if b == nil {
		return
	}
	s.gauge(pending, float64(b.Pending))
	age := time.Duration(0)
	if !b.OldestPending.IsZero() {
		age = max(b.At.Sub(b.OldestPending), 0)
	}
	s.gauge(oldestPending, age.Seconds())
	s.gauge(fanOutPositions, float64(b.Unfanned))
	s.gauge(backlogAge, unix(b.At))
}

func (s scrape) meter(from *Sources) {
	m := from.Meter()
	s.count(quotaAsks, m.Asks-m.FailedAsks, "ok")
	s.count(quotaAsks, m.FailedAsks, "error")
	s.count(quotaUnits, m.Granted, "reserved")
	s.count(quotaUnits, m.Returned, "returned")
	s.count(quotaUnits, m.Lost, "lost")
	s.gauge(meterKeys, float64(m.Keys))
	s.gauge(usageUnflushed, float64(m.Unflushed))
	s.count(usageFlushes, m.Flushes, "ok")
	s.count(usageFlushes, m.FailedFlushes, "error")
	s.gauge(usageFlushed, unix(m.FlushedAt))
	s.count(recordsDropped, m.RefusalsDropped)
}

func (s scrape) database(from *Sources) {
	for pool, stats := range from.Pools() {
		s.gauge(poolOpen, float64(stats.InUse), pool, "in_use")
		s.gauge(poolOpen, float64(stats.Idle), pool, "idle")
		s.gauge(poolMost, float64(stats.MaxOpenConnections), pool)
		s.count(poolWaits, uint64(max(stats.WaitCount, 0)), pool)
		s <- prometheus.MustNewConstMetric(poolWaitTime, prometheus.CounterValue, stats.WaitDuration.Seconds(), pool)
	}
	// A file that cannot be looked at is told by what reads it.
	if database, wal, err := from.FileSizes(); err == nil && database > 0 {
		s.gauge(fileSize, float64(database), "database")
		s.gauge(fileSize, float64(wal), "wal")
	}
}
