package apikeys

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func (b *backend) pathCreds() []*framework.Path {
	b.readFields = map[string]*framework.FieldSchema{
		"name":       nameField(),
		"version":    {Type: framework.TypeInt, Query: true, Description: "A version that is still in its grace period; 0: the current one."},
		"if_version": {Type: framework.TypeInt, Query: true, Description: "Answer 304 without a body where this is the current version, as If-None-Match does with an etag."},
		"wait":       {Type: framework.TypeInt, Query: true, Description: "With if_version or If-None-Match: wait up to so many seconds for another version. 55 are the most, because stock clients give up after 60; the answer says in wait how many it was. Where too many wait it is 0, and the header Retry-After says when to come again."},
	}
	b.readCreds = b.handle(b.handleCredsRead)
	read := map[logical.Operation]framework.OperationFunc{logical.ReadOperation: b.readCreds}
	return []*framework.Path{{
		Pattern: "creds/" + namePattern,
		Fields:  b.readFields,
		// Callbacks and not Operations: for the latter the SDK asks Vault for
		// its replication state with every request, which costs a round trip.
		Callbacks:    read,
		HelpSynopsis: "Read the current version of a key.",
		HelpDescription: `
The answer has no lease. key is the API key (further values of it are in
values); cache_ttl is a promise: for so many seconds, counted from before the
request was sent, the version works, and need not be asked for again. ttl is
when to read again in order to have the newest version; it is never longer.

With if_version=N or the header If-None-Match the answer is a 304 without a
body while that version is current; it renews the promise. The header needs the
mount tuned with passthrough_request_headers=If-None-Match, and the etag comes
as a header where it has allowed_response_headers=ETag. With wait=SECONDS the
answer comes as soon as there is another version. A wrapped answer promises so
much less as it may be unwrapped later.

stable-creds/NAME is the same without anything that changes while the key does
not, for readers that take any change for a new key.

Clients that lose a key to a revocation although they keep to cache_ttl have
found a fault, unless somebody used force or compromised=true.`,
	}, b.listing("the keys that can be read", "creds"), {
		Pattern:      stablePrefix + namePattern,
		Fields:       b.readFields,
		Callbacks:    read,
		HelpSynopsis: "Read the current version of a key, byte by byte the same until it is another one.",
		HelpDescription: `
As creds/NAME, but the answer holds only key, values, version and created_time.
It says nothing of how long the key may be used: read it again more often than
the key's grace_period, or use creds/NAME.`,
	}}
}

// stablePrefix begins the paths whose answers hold no countdowns: the Vault
// Secrets Operator and External Secrets take any changed field for a new key.
const stablePrefix = "stable-creds/"

// plainRead answers what nearly every request is, the read of a key without
// any field, past the framework's table of paths: its search by regular
// expressions and its copies of the fields cost half as much as the rest. It tells
// whether the request was such a one.
func (b *backend) plainRead(ctx context.Context, req *logical.Request) (_ *logical.Response, ok bool, _ error) {
	name, ok := strings.CutPrefix(req.Path, "creds/")
	if !ok || req.Operation != logical.ReadOperation || len(req.Data) > 0 || name == "" || strings.HasSuffix(name, "/") {
		return nil, false, nil
	}
	d := &framework.FieldData{Raw: map[string]any{"name": name}, Schema: b.readFields}
	resp, err := b.readCreds(ctx, req, d)
	return resp, true, err
}

func (b *backend) handleCredsRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	q, err := b.takeQuery(req, d)
	if err != nil {
		return nil, err
	}
	b.stats.reads.Add(1)
	snap, err := b.snapshot(ctx, req.Storage, name)
	if err != nil || snap == nil {
		return nil, err
	}
	if q.waits && q.known(snap) {
		if snap, err = b.waitForChange(ctx, req, snap, q); err != nil || snap == nil {
			return nil, err
		}
	}
	return b.credsResponse(snap, q)
}

// credsQuery is what a read asks for.
type credsQuery struct {
	version   int
	ifVersion int
	etags     []string
	any       bool // If-None-Match: *
	waits     bool // wait was given
	wait      time.Duration
	refused   bool // it may not wait
	stable    bool
	// wrapped is how long the answer may lie in a wrapping token before somebody reads it.
	wrapped time.Duration
}

func (b *backend) takeQuery(req *logical.Request, d *framework.FieldData) (*credsQuery, error) {
	q := &credsQuery{}
	takeInt(d, "version", &q.version)
	takeInt(d, "if_version", &q.ifVersion)
	wait := 0
	takeInt(d, "wait", &wait)
	if q.version < 0 || q.ifVersion < 0 {
		return nil, refuse("", "version %d, if_version %d: must not be negative", q.version, q.ifVersion)
	}
	if wait < 0 || time.Duration(wait)*time.Second > maxWaitLimit {
		return nil, refuse("", "wait %d: must be from 0 to %d seconds", wait, seconds(maxWaitLimit))
	}
	q.takeEtags(req)
	if wait > 0 && q.ifVersion == 0 && len(q.etags) == 0 {
		return nil, refuse("add if_version=N, the version that you have", "wait needs to know what to wait for")
	}
	if wait > 0 && q.version != 0 {
		return nil, refuse("", "wait and version=%d: only the current version changes", q.version)
	}
	q.waits = wait > 0
	q.wait = min(time.Duration(wait)*time.Second, b.config.get().MaxWait, longestWait)
	q.stable = strings.HasPrefix(req.Path, stablePrefix)
	if req.WrapInfo != nil {
		q.wrapped = req.WrapInfo.TTL
	}
	return q, nil
}

// longestWait leaves stock clients time to read the answer: Go's give up 60 s
// after they have asked.
const longestWait = 55 * time.Second

// A read that may not wait, because too many do or because nobody may, is held for
// a moment and told when to come again: clients that ask as soon as they have an
// answer would otherwise ask without pause.
const (
	noWaitPause = time.Second
	comeAgain   = 5 * time.Second
)

// takeEtags reads If-None-Match, which is a star or a list of entity tags whose
// weakness does not count (RFC 9110, 13.1.2).
func (q *credsQuery) takeEtags(req *logical.Request) {
	for name, lines := range req.Headers {
		if !strings.EqualFold(name, "If-None-Match") {
			continue
		}
		for _, h := range lines {
			q.any = q.any || strings.TrimSpace(h) == "*"
			for _, tag := range strings.Split(h, ",") { // our tags hold no comma
				if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag != "" && tag != "*" {
					q.etags = append(q.etags, tag)
				}
			}
		}
	}
}

// known tells whether the reader already has what it would get.
func (q *credsQuery) known(snap *snapshot) bool {
	v := q.choose(snap)
	if v == nil {
		return false
	}
	// A number stands for the key alone, an etag for what was promised, too.
	if q.any || (q.ifVersion == v.Number && v.PromiseKept()) {
		return true
	}
	return len(q.etags) > 0 && slices.Contains(q.etags, snap.etagOf(v))
}

func (q *credsQuery) choose(snap *snapshot) *lifecycle.Version {
	if q.version == 0 {
		return snap.rec.Life.Current()
	}
	return snap.rec.Life.Find(q.version)
}

// waitForChange holds the read until the key changes or its time is over. It
// holds no lock of ours meanwhile.
func (b *backend) waitForChange(ctx context.Context, req *logical.Request, snap *snapshot, q *credsQuery) (*snapshot, error) {
	name := snap.rec.Name
	until := b.opts.Clock.Monotonic() + q.wait
	for {
		told, leave, ok := b.waiters.join(name, b.config.get().MaxWaiters)
		if !ok || q.wait <= 0 {
			if ok {
				leave()
			}
			q.wait, q.refused = 0, true
			b.waiters.pause(ctx, noWaitPause)
			return b.snapshot(ctx, req.Storage, name)
		}
		// Look again now that a change cannot be missed any more.
		next, err := b.snapshot(ctx, req.Storage, name)
		left := until - b.opts.Clock.Monotonic()
		if err != nil || next == nil || !q.known(next) || !q.choose(next).ReadableAt(b.clock.now()) || left <= 0 || ctx.Err() != nil || b.config.get().MaxWait == 0 {
			leave()
			return next, err
		}
		snap = next
		b.stats.waits.Add(1)
		waitFor(ctx, told, left)
		leave()
	}
}

func (b *backend) credsResponse(snap *snapshot, q *credsQuery) (*logical.Response, error) {
	rec, now := snap.rec, b.clock.now()
	v := q.choose(snap)
	switch {
	case rec.Deleting != nil:
		return nil, nil
	case v == nil && q.version != 0:
		return nil, refuse("versions/"+rec.Name+" lists them", "key %q has no version %d", rec.Name, q.version)
	case v == nil || (q.version == 0 && !v.ReadableAt(now)):
		return b.noVersion(snap)
	case !v.ReadableAt(now):
		return nil, refuse("read the current one", "version %d of key %q is %s", v.Number, rec.Name, stateWord(v, now))
	case len(rec.Values[v.Number]) == 0:
		return nil, refuse("read the current one", "version %d of key %q is kept as a hash only", v.Number, rec.Name)
	}
	etag := snap.etagOf(v)
	if q.known(snap) && renewable(snap, v) && q.wrapped == 0 {
		b.stats.notModified.Add(1)
		return q.told(notModified(etag)), nil
	}
	promise := lifecycle.Promise(v, now, snap.caps.Overlap, snap.rotation(now).At)
	switch {
	case !snap.known:
		promise = min(promise, v.Grace) // nobody knows whether its successor's birth ends it
	case !snap.caps.Overlap && v.State == lifecycle.Current && b.intents.open(rec.Name):
		promise = 0 // it may have been replaced by a key whose birth nobody has seen
	}
	if q.wrapped > 0 && q.wrapped >= promise {
		return nil, refuse("wrap it for less, or hand over a token that may read it",
			"key %q may be dead before it is unwrapped: it is promised for %s, the wrapping token lives for %s", rec.Name, promise, q.wrapped)
	}
	promise -= q.wrapped
	if q.stable {
		return q.told(&logical.Response{Data: keyData(rec, v), Headers: map[string][]string{"ETag": {etag}}}), nil
	}
	return q.told(b.fullResponse(snap, v, etag, promise, now)), nil
}

// told adds how long the engine has let this read wait at most: in the answer
// and, as a 304 has no body, in the header that RFC 7240 has for it.
func (q *credsQuery) told(resp *logical.Response) *logical.Response {
	if !q.waits {
		return resp
	}
	if q.refused {
		resp.Headers["Retry-After"] = []string{fmt.Sprint(seconds(comeAgain))}
	}
	resp.Headers["Preference-Applied"] = []string{fmt.Sprintf("wait=%d", seconds(q.wait))}
	if _, raw := resp.Data[logical.HTTPStatusCode]; !raw && !q.stable {
		resp.Data["wait"] = seconds(q.wait)
		if q.refused {
			resp.Data["retry_after"] = seconds(comeAgain)
		}
	}
	return resp
}

// keyData is what of an answer belongs to the version itself: it never changes.
func keyData(rec *keyRecord, v *lifecycle.Version) map[string]any {
	values := rec.Values[v.Number]
	data := map[string]any{
		"key":          values[provider.PrimaryValue],
		"version":      v.Number,
		"created_time": stamp(v.Created),
	}
	if len(values) > 1 {
		data["values"] = values
	}
	return data
}

// renewable tells whether a 304 says the truth: a reader that gets one counts
// its cache_ttl anew, so the promise must not be one that runs out at a fixed
// time.
func renewable(snap *snapshot, v *lifecycle.Version) bool {
	return v.State == lifecycle.Current && snap.caps.Overlap && v.RevokeAt.IsZero() && v.Expires.IsZero() && v.Doubted.IsZero()
}

func notModified(etag string) *logical.Response {
	return &logical.Response{
		Data: map[string]any{
			logical.HTTPStatusCode: http.StatusNotModified,
			// Without a content type Vault answers 500.
			logical.HTTPContentType: "application/json",
			logical.HTTPRawBody:     []byte{},
		},
		Headers: map[string][]string{"ETag": {etag}},
	}
}

func (b *backend) fullResponse(snap *snapshot, v *lifecycle.Version, etag string, promise time.Duration, now time.Time) *logical.Response {
	rec := snap.rec
	due := snap.rotation(now).Wanted
	next := due
	if v.State != lifecycle.Current {
		next = time.Time{} // it is replaced already
	}
	ttl := lifecycle.TTL(promise, next, now, b.retryInterval(snap, now))
	data := keyData(rec, v)
	maps.Copy(data, map[string]any{
		"etag":                etag,
		"state":               string(v.State),
		"last_rotated_time":   stamp(rec.LastRotation),
		"next_rotation_time":  stamp(due),
		"last_vault_rotation": stamp(rec.LastRotation),
		"rotation_period":     b.periodSeconds(snap, due),
		"cache_ttl":           seconds(promise),
		"ttl":                 max(seconds(ttl), 1),
	})
	if len(rec.Def.Metadata) > 0 {
		data["custom_metadata"] = rec.Def.Metadata
	}
	if v.State == lifecycle.Grace {
		data["revoke_time"] = stamp(v.RevokeAt)
	}
	resp := &logical.Response{Data: data, Headers: map[string][]string{"ETag": {etag}}}
	b.warn(resp, snap, v, now)
	return resp
}

// periodSeconds is rotation_period as Vault Agent wants it: with a schedule,
// the time between the last and the next rotation.
func (b *backend) periodSeconds(snap *snapshot, due time.Time) int64 {
	rec := snap.rec
	if snap.policy != nil && snap.policy.Scheduled() {
		if !due.IsZero() && !rec.LastRotation.IsZero() {
			return max(seconds(due.Sub(rec.LastRotation)), 1)
		}
	}
	return seconds(b.config.get().periodOf(&rec.Def))
}

func (b *backend) retryInterval(snap *snapshot, now time.Time) time.Duration {
	if w := snap.rec.Wait; w != nil {
		return w.Until.Sub(now)
	}
	return 0
}

// warn adds what a person should know who reads this key.
func (b *backend) warn(resp *logical.Response, snap *snapshot, v *lifecycle.Version, now time.Time) {
	rec := snap.rec
	if rec.Uncertain != nil {
		resp.AddWarning("a rotation of this key was interrupted and needs a person: see resolve/" + rec.Name)
	}
	if !v.Doubted.IsZero() {
		resp.AddWarning(fmt.Sprintf("whether version %d still works is not known: its successor was asked for at %s, and has not come", v.Number, text(v.Doubted)))
	}
	due := snap.rotation(now).Wanted
	if snap.caps.Mint || due.IsZero() || v.State != lifecycle.Current {
		return
	}
	if left := due.Sub(now); left <= b.config.get().WarnBefore {
		if left > 0 {
			resp.AddWarning(fmt.Sprintf("this key must be replaced by hand by %s: make a new one and write it to import/%s", stamp(due), rec.Name))
			return
		}
		resp.AddWarning(fmt.Sprintf("this key should have been replaced by hand on %s: make a new one and write it to import/%s", stamp(due), rec.Name))
	}
}

// noVersion is the answer while a key has nothing to give: a fault on our
// side, which passes.
func (b *backend) noVersion(snap *snapshot) (*logical.Response, error) {
	rec := snap.rec
	if rec.neverHad() && !snap.caps.Mint {
		return nil, refuse("write the first one to import/"+rec.Name, "key %q has no version yet", rec.Name)
	}
	why := "its first version is not ready yet"
	if cur := rec.Life.Current(); cur != nil {
		why = fmt.Sprintf("version %d is %s", cur.Number, stateWord(cur, b.clock.now()))
	} else if len(rec.Life.Versions) > 0 {
		why = "its last version is " + stateWord(&rec.Life.Versions[len(rec.Life.Versions)-1], b.clock.now())
	}
	if rec.MintFailure != nil {
		why += ", and there is no new one: " + rec.MintFailure.Message
	} else if !snap.caps.Mint {
		why += ": make a new one and write it to import/" + rec.Name
	}
	return nil, logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf("key %q has no valid version: %s", rec.Name, why))
}

// stateWord is a version's state as it is at now, whether or not the engine
// has got to it yet.
func stateWord(v *lifecycle.Version, now time.Time) string {
	switch {
	case v.Compromised:
		return "compromised"
	case v.GivenUp():
		return "given up"
	case v.State == lifecycle.Revoked:
		return string(v.State)
	case v.Found:
		return "known by name only"
	case v.ExpiredAt(now):
		return "expired since " + text(v.Expires)
	case v.State == lifecycle.Grace && !now.Before(v.RevokeAt):
		return "past its grace period"
	case v.State == lifecycle.Current && !v.ReadableAt(now):
		return "ended since " + text(v.RevokeAt)
	}
	return string(v.State)
}

func (s *snapshot) etagOf(v *lifecycle.Version) string {
	if v.State == lifecycle.Current {
		return s.etag
	}
	return etagOf(s.rec, v)
}

// etagOf changes whenever a cached answer stops being as good as a new one:
// with the version, its state and what its readers are promised. It is the
// hash of nothing secret.
func etagOf(rec *keyRecord, v *lifecycle.Version) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00%s\x00%d\x00%d\x00%d", rec.UID, v.Number, v.State, v.Created.UnixNano(), v.Grace, v.RevokeAt.UnixNano())
	return `"` + hex.EncodeToString(h.Sum(nil)[:12]) + `"`
}
