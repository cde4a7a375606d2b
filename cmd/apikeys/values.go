package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apikeysv1 "github.com/apikeys-dev/apikeys/gen/apikeys/v1"
	"github.com/apikeys-dev/apikeys/server/apikey"
)

// A moment is a time, or a time span from now.
type moment struct {
	at   *time.Time
	span time.Duration // where at is nil
}

// parseMoment reads a span such as 90d, a day, or a time in UTC or with its zone.
func parseMoment(text string) (m moment, err error) {
	var span period
	if span.UnmarshalText([]byte(text)) == nil {
		return moment{span: time.Duration(span)}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02T15:04:05", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil && timestamppb.New(at).IsValid() {
			return moment{at: &at}, nil
		}
	}
	return moment{}, fmt.Errorf("must be a time span such as 90d, 12h or 30m, a day such as 2027-01-31, or a time such as %q or 2027-01-31T12:00:00Z, not %q",
		"2027-01-31 12:00:00", apikey.Excerpt(text))
}

// A pastTime is a time to look back to: a span means so long ago.
type pastTime struct{ moment }

// UnmarshalText takes what parseMoment takes.
func (t *pastTime) UnmarshalText(text []byte) (err error) {
	t.moment, err = parseMoment(string(text))
	return err
}

// proto returns the time, nil where none was given.
func (t *pastTime) proto(now time.Time) *timestamppb.Timestamp {
	switch {
	case t == nil:
		return nil
	case t.at == nil:
		return timestamppb.New(now.Add(-t.span))
	}
	return timestamppb.New(*t.at)
}

// A futureTime is a time to come: a span means in so long.
type futureTime struct{ moment }

// UnmarshalText takes what parseMoment takes.
func (t *futureTime) UnmarshalText(text []byte) (err error) {
	t.moment, err = parseMoment(string(text))
	return err
}

// proto returns the time, nil where none was given.
func (t *futureTime) proto(now time.Time) *timestamppb.Timestamp {
	switch {
	case t == nil:
		return nil
	case t.at == nil:
		return timestamppb.New(now.Add(t.span))
	}
	return timestamppb.New(*t.at)
}

// rateLimit is a rate limit such as 100/1m.
type rateLimit struct{ limit *apikeysv1.RateLimit }

// UnmarshalText takes REQUESTS/WINDOW, with ,exact behind it for one limit over all
// servers. What is out of bounds is for the server to say.
func (r *rateLimit) UnmarshalText(text []byte) error {
	rest, mode, hasMode := strings.Cut(string(text), ",")
	requests, window, _ := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(requests, 10, 32)
	var span period
	if window != "" && 'a' <= window[0] && window[0] <= 'z' {
		window = "1" + window // 100/m
	}
	if err != nil || span.UnmarshalText([]byte(window)) != nil || time.Duration(span)%time.Second != 0 || span == 0 || time.Duration(span) > 1000*24*time.Hour {
		return fmt.Errorf("must be REQUESTS/WINDOW such as 100/1m or 10/1s, not %q", apikey.Excerpt(string(text)))
	}
	r.limit = &apikeysv1.RateLimit{Requests: int32(n), WindowSeconds: int32(time.Duration(span) / time.Second)}
	switch {
	case mode == "exact":
		r.limit.Mode = apikeysv1.RateLimitMode_RATE_LIMIT_MODE_EXACT
	case mode == "local":
		r.limit.Mode = apikeysv1.RateLimitMode_RATE_LIMIT_MODE_LOCAL
	case hasMode:
		return fmt.Errorf("must end in ,local or ,exact, if in any, not in %q", apikey.Excerpt(mode))
	}
	return nil
}

// proto returns the limit, nil where none was given.
func (r *rateLimit) proto() *apikeysv1.RateLimit {
	if r == nil {
		return nil
	}
	return r.limit
}

// quota is a quota such as 100000/monthly.
type quota struct{ quota *apikeysv1.Quota }

// UnmarshalText takes LIMIT, LIMIT/daily, LIMIT/monthly and LIMIT/monthly@DAY.
func (q *quota) UnmarshalText(text []byte) error {
	limit, refill, hasRefill := strings.Cut(string(text), "/")
	n, err := strconv.ParseInt(limit, 10, 64)
	refill, day, hasDay := strings.Cut(refill, "@")
	value := &apikeysv1.Quota{Limit: n}
	switch refill {
	case "none", "":
		if hasRefill {
			value.Refill = apikeysv1.QuotaRefill_QUOTA_REFILL_NONE
		}
	case "daily":
		value.Refill = apikeysv1.QuotaRefill_QUOTA_REFILL_DAILY
	case "monthly":
		value.Refill = apikeysv1.QuotaRefill_QUOTA_REFILL_MONTHLY
	default:
		err = errors.New("no such refill")
	}
	if hasDay && err == nil {
		var d int64
		d, err = strconv.ParseInt(day, 10, 32)
		refillDay := int32(d)
		value.RefillDay = &refillDay
	}
	if err != nil || hasRefill && refill == "" {
		return fmt.Errorf("must be LIMIT, LIMIT/daily, LIMIT/monthly or LIMIT/monthly@DAY, such as 100000/monthly, not %q", apikey.Excerpt(string(text)))
	}
	q.quota = value
	return nil
}

// proto returns the quota, nil where none was given.
func (q *quota) proto() *apikeysv1.Quota {
	if q == nil {
		return nil
	}
	return q.quota
}

// overlap is how long an old secret works beside the new one.
func (p period) seconds() *int32 {
	// One that is too long is for the server to refuse, in its words.
	seconds := int32(min(time.Duration(p), apikey.MaxOverlap+time.Second) / time.Second)
	return &seconds
}
