package meter

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/apikeys-dev/apikeys/server/apikey"
)

// client is from where a key was used last, and from how many addresses on that day. It
// is apart from the Counters, since most uses do not touch it.
type client struct {
	addr  netip.Addr
	agent string
	// addresses has counted those of one day; more says that some are not stored.
	addresses apikey.Addresses
	more      bool
	refused   int64 // refused uses since the last flush, or not stored by it
}

// maxAgent bounds the texts of callers that are held until the next flush, in bytes.
const maxAgent = 2 << 10

// agentSeed is that of the hashes by which one use is told from another.
var agentSeed = maphash.MakeSeed()

// useLocked notes a use in an hour since 1970. That of the same client again is found by
// its hash, and reads and writes nothing else. The caller holds c.mu.
func (c *Counters) useLocked(by *apikey.CheckRequest, hour int64) {
	b := by.Addr.As16()
	seen := binary.LittleEndian.Uint64(b[8:])*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(b[:8]) ^ uint64(hour)*0xff51afd7ed558ccd
	seen = (seen ^ seen>>29) * 0xc4ceb9fe1a85ec53
	if by.UserAgent != "" {
		seen += maphash.String(agentSeed, by.UserAgent)
	}
	if seen |= 1; seen == c.seen {
		return
	}
	c.seen = seen
	k := c.clientLocked()
	if by.UserAgent != k.agent {
		k.agent = shortAgent(by.UserAgent)
	}
	if k.addr = by.Addr; k.addr.IsValid() && k.addresses.Add(k.addr, hour/hoursADay) {
		k.more = true
	}
}

// clientLocked returns the client, which it makes where there is none.
func (c *Counters) clientLocked() *client {
	if c.client == nil {
		c.client = new(client)
	}
	return c.client
}

// take adds what is to be stored to n, but for the client of the latest use, which it
// returns.
func (k *client) take(n *apikey.UsageCount) (netip.Addr, string) {
	if k == nil {
		return netip.Addr{}, ""
	}
	n.Refused, k.refused = k.refused, 0
	if k.more {
		n.Addresses, n.AddressDay, k.more = k.addresses.Bytes(), k.addresses.Day(), false
	}
	if n.Count == 0 {
		return netip.Addr{}, ""
	}
	return k.addr, k.agent
}

// putBack adds what was taken and could not be stored.
func (k *client) putBack(n *apikey.UsageCount) {
	if k != nil {
		k.refused += n.Refused
		k.more = k.more || n.Addresses != nil
	}
}

const hoursADay = 24

// shortAgent returns a copy of text, or of the beginning of one that is long: text may be a
// part of a message, all of which it would hold until the next flush.
func shortAgent(text string) string {
	return strings.Clone(text[:min(len(text), maxAgent)])
}

// Refuse puts a refused use of a key on record of which its caller was told nothing.
// [Meter.Charge] does so for all others.
func (m *Meter) Refuse(c *Counters, key *apikey.Key, by *apikey.CheckRequest, code apikey.Code, at time.Time) {
	c = m.registry.lock(c)
	defer c.mu.Unlock()
	m.registry.refuseLocked(c, key, by, code, at)
	m.registry.listLocked(c)
}

// RefusePrevious puts on record that a call was refused because it was made with the
// previous secret of a key. It has been charged as valid.
func (m *Meter) RefusePrevious(key apikey.Actor, by *apikey.CheckRequest, at time.Time) {
	if c := m.registry.find(key.ID); c != nil {
		m.Refuse(c, &apikey.Key{ID: key.ID, Label: key.Name}, by, apikey.CodePreviousSecret, at)
	}
}

// refuseLocked counts a refused use of a key and keeps it for the next flush. The
// caller holds c.mu.
func (r *registry) refuseLocked(c *Counters, key *apikey.Key, by *apikey.CheckRequest, code apikey.Code, at time.Time) {
	c.clientLocked().refused++
	record := refusal{at: at, code: code, addr: by.Addr, agent: shortAgent(by.UserAgent), via: apikey.ViaVerification}
	if by.Caller != nil {
		record.caller = *by.Caller
	} else {
		record.via, record.caller = apikey.ViaAuthentication, apikey.Actor{Kind: apikey.ActorKey, ID: key.ID, Name: key.Label}
	}
	r.refusals.add(c.organization, c.id, record)
}

// refusal is a refused use as it is held until the next flush, which makes texts of it:
// in a flood, most are replaced before that.
type refusal struct {
	at     time.Time
	code   apikey.Code
	via    apikey.RefusalVia
	addr   netip.Addr
	agent  string
	caller apikey.Actor
}

// The bounds of what is held until the next flush, and so of what a flush writes.
const (
	// maxHeld bounds the refusals of all keys.
	maxHeld = 4096
	// maxCleaned bounds the names of programs of which it is remembered what is kept.
	maxCleaned = 1024
)

// refusals are those that are not stored yet: of each key the newest, and of all no more
// than maxHeld. Where there are more, those of the organization go first that has more
// than its share, its oldest first: no organization's flood takes what others have. The
// zero value is ready for use. Its lock is taken after that of Counters.
type refusals struct {
	mu            sync.Mutex
	held          int
	dropped       uint64 // since the start, for want of room
	organizations map[string]*refusedOrganization
}

// refusedOrganization is what an organization has of them.
type refusedOrganization struct {
	keys map[string]*refusedKey
	// queue has the key of each refusal, in about their order.
	queue []string
}

// refusedKey is what a key has of them: a ring, from first on.
type refusedKey struct {
	organization string
	records      []refusal
	first        int
}

// add keeps a refusal of a key.
func (r *refusals) add(organization, id string, record refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.organizations[organization]; o != nil {
		if k := o.keys[id]; k != nil && len(k.records) == apikey.MaxRefusals {
			k.records[k.first] = record
			k.first = (k.first + 1) % apikey.MaxRefusals
			return
		}
	}
	if r.held >= maxHeld {
		r.makeRoomLocked(organization)
	}
	k := r.keyLocked(organization, id)
	k.records = append(k.ordered(), record)
	k.first = 0
	r.noteLocked(organization, id)
}

// keyLocked returns what a key has, which may be nothing yet.
func (r *refusals) keyLocked(organization, id string) *refusedKey {
	if r.organizations == nil {
		r.organizations = make(map[string]*refusedOrganization)
	}
	o := r.organizations[organization]
	if o == nil {
		o = &refusedOrganization{keys: make(map[string]*refusedKey)}
		r.organizations[organization] = o
	}
	k := o.keys[id]
	if k == nil {
		k = &refusedKey{organization: organization}
		o.keys[id] = k
	}
	return k
}

// noteLocked notes that a key has one more.
func (r *refusals) noteLocked(organization, id string) {
	o := r.organizations[organization]
	o.queue = append(o.queue, id)
	r.held++
}

// makeRoomLocked drops the oldest refusals of an organization: of the one that needs
// room, if it has its share already, else of the one that has most.
func (r *refusals) makeRoomLocked(organization string) {
	share := maxHeld / (len(r.organizations) + 1)
	name, o := organization, r.organizations[organization]
	drop := 1
	if o == nil || len(o.queue) <= share {
		for other, has := range r.organizations {
			if o == nil || len(has.queue) > len(o.queue) {
				name, o = other, has
			}
		}
		// Many at a time, or each refusal of a flood would look at all organizations.
		drop = max((len(o.queue)-share)/2, 1)
	}
	for range drop {
		id := o.queue[0]
		o.queue = o.queue[1:]
		k := o.keys[id]
		if k.records, k.first = k.ordered()[1:], 0; len(k.records) == 0 {
			delete(o.keys, id)
		}
		r.held--
		r.dropped++
	}
	if len(o.queue) == 0 {
		delete(r.organizations, name)
	}
}

// ordered returns the records from the oldest on.
func (k *refusedKey) ordered() []refusal {
	if k.first == 0 {
		return k.records
	}
	return append(append(make([]refusal, 0, len(k.records)), k.records[k.first:]...), k.records[:k.first]...)
}

// droppedCount returns how many refusals were dropped since the start.
func (r *refusals) droppedCount() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// take returns all that is held, by the id of the key, and forgets it.
func (r *refusals) take() map[string]*refusedKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := make(map[string]*refusedKey)
	for _, o := range r.organizations {
		for id, k := range o.keys {
			taken[id] = k
		}
	}
	r.organizations, r.held = nil, 0
	return taken
}

// putBack keeps again what a flush could not store, as far as there is room for it
// beside what has come since.
func (r *refusals) putBack(organization, id string, taken []apikey.RefusedUse) {
	if len(taken) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.keyLocked(organization, id)
	newer := k.ordered()
	wanted := min(apikey.MaxRefusals-len(newer), len(taken)) // Newer ones replace the rest.
	room := max(min(maxHeld-r.held, wanted), 0)
	r.dropped += uint64(wanted - room)
	taken = taken[len(taken)-room:]
	records := make([]refusal, 0, len(taken)+len(newer))
	for i := range taken {
		u := &taken[i]
		addr, _ := netip.ParseAddr(u.IP) // which is unknown where it is empty
		records = append(records, refusal{u.At, u.Code, u.Via, addr, u.UserAgent, u.Caller})
		r.noteLocked(organization, id)
	}
	if k.records, k.first = append(records, newer...), 0; len(k.records) == 0 {
		o := r.organizations[organization]
		if delete(o.keys, id); len(o.keys) == 0 {
			delete(r.organizations, organization)
		}
	}
}

// recordsOf returns what a key has of taken, as it is stored, and removes it from there.
func (r *registry) recordsOf(taken map[string]*refusedKey, id string) []apikey.RefusedUse {
	k := taken[id]
	if k == nil {
		return nil
	}
	delete(taken, id)
	records := k.ordered()
	uses := make([]apikey.RefusedUse, len(records))
	for i := range records {
		u := &records[i]
		uses[i] = apikey.RefusedUse{
			At: u.at, Code: u.code, Via: u.via, IP: apikey.AddressText(u.addr), UserAgent: r.agents.clean(u.agent), Caller: u.caller,
		}
	}
	return uses
}

// agents says what is kept of the names of programs, and remembers it: they are few,
// and looking for secrets takes long. It is for one flush at a time.
type agents struct {
	secrets *apikey.SecretFinder
	mu      sync.Mutex
	cleaned map[string]string
}

func (a *agents) clean(text string) string {
	if text == "" {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	kept, ok := a.cleaned[text]
	if !ok {
		kept = a.secrets.UserAgent(text)
		if a.cleaned == nil || len(a.cleaned) >= maxCleaned {
			a.cleaned = make(map[string]string)
		}
		a.cleaned[strings.Clone(text)] = kept
	}
	return kept
}
