package apikeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// This file alone knows where things lie in the mount's storage:
//
//	meta            identity of the mount, epoch; written once, and by reconcile
//	config          the mount's defaults
//	clock           engine time, every few minutes
//	provider/NAME   a provider with its credential
//	key/NAME        a key with all its versions and values: one entry, so that
//	                one write is one transition
//	index/NNN       packed names and due times of all keys, in shards
//	wal/UUID        intents, in the SDK's format
//	reconcile       progress of a reconcile
//	webhook/NAME    a webhook with its secret
//	campaign/NAME   the revocation of all keys of a provider, until all were looked at
//	compromised/NAME  until when keys of that provider are known to others
//	clean           the index says of every key what its record does
//	look            whose keys must be looked at, since what decides when they are due has changed
//	event/NAME/…    what a webhook has not been told yet
//	ended/NAME      the last version number of a key that is gone
//
// Every entry carries the format that wrote it.

// storageFormat is raised when an entry's meaning changes. Older formats stay
// readable for ever; a newer one is refused. Format 1 is 0.1's: it drops what it does
// not know, as where a version was made and how far its end has come, and then ends
// keys at the wrong place.
const storageFormat = 2

// StorageFormat is the format that this release writes, for the program to tell. Who
// goes back to a release with a lower one needs the storage of before, too.
const StorageFormat = storageFormat

const (
	metaKey        = "meta"
	configKey      = "config"
	clockKey       = "clock"
	reconcileKey   = "reconcile"
	providerPrefix = "provider/"
	keyPrefix      = "key/"
	indexPrefix    = "index/"
	webhookPrefix  = "webhook/"
	campaignPrefix = "campaign/"
	datePrefix     = "compromised/"
	lookKey        = "look"
	cleanKey       = "clean"
	eventsPrefix   = "event/"
	endedPrefix    = "ended/"
	trialPrefix    = "trial/"
)

// maxEntryBytes keeps entries below what raft takes without harm (512 KiB).
const maxEntryBytes = 448 << 10

// sealWrapPaths are what Vault Enterprise wraps with its seal a second time.
func sealWrapPaths() []string {
	return []string{keyPrefix, providerPrefix, webhookPrefix, framework.WALPrefix}
}

var (
	errEntryTooLarge = errors.New("storage entry too large")
	errDamaged       = errors.New("is damaged")
)

// store reads and writes entries. It holds no state and takes no locks.
type store struct{ s logical.Storage }

// versioned is the envelope of every entry.
type versioned struct {
	Format int             `json:"format"`
	Data   json.RawMessage `json:"data"`
}

func encodeEntry(key string, data any) (*logical.StorageEntry, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	value, err := json.Marshal(versioned{Format: storageFormat, Data: raw})
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	if len(value) > maxEntryBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed: %w", key, len(value), maxEntryBytes, errEntryTooLarge)
	}
	return &logical.StorageEntry{Key: key, Value: value}, nil
}

// decodeEntry never quotes the entry in its errors, which may hold secrets.
func decodeEntry(key string, value []byte, data any) error {
	var env versioned
	if err := decodeJSON(value, &env); err != nil {
		return fmt.Errorf("storage entry %s %w: %w", key, errDamaged, hideJSON(err))
	}
	if env.Format < 1 {
		return fmt.Errorf("storage entry %s has no format", key)
	}
	if env.Data == nil {
		return fmt.Errorf("storage entry %s is damaged: it has no data", key)
	}
	// What a later release has written is read as far as it can be: the caller
	// decides whether that is of use.
	err := decodeJSON(env.Data, data)
	if env.Format > storageFormat {
		return &newerFormat{key: key, format: env.Format, unreadable: err != nil}
	}
	if err != nil {
		return fmt.Errorf("storage entry %s %w: %w", key, errDamaged, hideJSON(err))
	}
	return nil
}

// newerFormat is an entry that a later release has written.
type newerFormat struct {
	key        string
	format     int
	unreadable bool
}

func (e *newerFormat) Error() string {
	return fmt.Sprintf("storage entry %s has format %d, this release reads up to %d: install the release that wrote it", e.key, e.format, storageFormat)
}

// hideJSON keeps the place of a fault and drops the value that it quotes.
func hideJSON(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON at byte %d", syntax.Offset)
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("wrong type in field %q", kind.Field)
	}
	return errors.New("not the expected JSON")
}

// get decodes the entry at key into data and tells whether there is one. What a
// later release has written is taken as far as it can be read.
func (st store) get(ctx context.Context, key string, data any) (bool, error) {
	ok, err := st.getOwn(ctx, key, data)
	var newer *newerFormat
	if errors.As(err, &newer) && !newer.unreadable {
		return ok, nil
	}
	return ok, err
}

// getOwn is get for what somebody has defined: of a later release it is an error,
// so that nobody writes over it.
func (st store) getOwn(ctx context.Context, key string, data any) (bool, error) {
	entry, err := st.s.Get(ctx, key)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", key, err)
	}
	if entry == nil {
		return false, nil
	}
	return true, decodeEntry(key, entry.Value, data)
}

// own gives what somebody has defined; nil: there is none.
func own[T any](ctx context.Context, st store, key string) (*T, error) {
	rec := new(T)
	if ok, err := st.getOwn(ctx, key, rec); err != nil || !ok {
		return nil, err
	}
	return rec, nil
}

func (st store) put(ctx context.Context, key string, data any) error {
	entry, err := encodeEntry(key, data)
	if err != nil {
		return err
	}
	if err := st.s.Put(ctx, entry); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}

func (st store) remove(ctx context.Context, key string) error {
	if err := st.s.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

func (st store) key(ctx context.Context, name string) (*keyRecord, error) {
	rec := &keyRecord{}
	ok, err := st.getOwn(ctx, keyPrefix+name, rec)
	var newer *newerFormat
	if errors.As(err, &newer) && !newer.unreadable && rec.Name == name && rec.Life.Check() == nil {
		rec.newer, err = newer.format, nil
	}
	if err != nil || !ok {
		return nil, err
	}
	rec.adopt()
	return rec, nil
}

func (st store) putKey(ctx context.Context, rec *keyRecord) error {
	return st.put(ctx, keyPrefix+rec.Name, rec)
}

func (st store) removeKey(ctx context.Context, name string) error {
	return st.remove(ctx, keyPrefix+name)
}

// ended is what is left of a key that is gone. Readers compare numbers, so those
// of the next key of that name go on from there.
type ended struct {
	Last int `json:"last"`
}

func (st store) lastNumber(ctx context.Context, name string) (int, error) {
	var e ended
	_, err := st.get(ctx, endedPrefix+name, &e)
	return e.Last, err
}

func (st store) putLastNumber(ctx context.Context, name string, last int) error {
	return st.put(ctx, endedPrefix+name, ended{last})
}

func (st store) provider(ctx context.Context, name string) (*providerRecord, error) {
	return own[providerRecord](ctx, st, providerPrefix+name)
}

func (st store) putProvider(ctx context.Context, rec *providerRecord) error {
	return st.put(ctx, providerPrefix+rec.Name, rec)
}

func (st store) removeProvider(ctx context.Context, name string) error {
	return st.remove(ctx, providerPrefix+name)
}

func (st store) providers(ctx context.Context) ([]string, error) { return st.list(ctx, providerPrefix) }

func (st store) list(ctx context.Context, prefix string) ([]string, error) {
	names, err := st.s.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return names, nil
}

func (st store) webhook(ctx context.Context, name string) (*webhookRecord, error) {
	return own[webhookRecord](ctx, st, webhookPrefix+name)
}

func (st store) putWebhook(ctx context.Context, rec *webhookRecord) error {
	return st.put(ctx, webhookPrefix+rec.Name, rec)
}

func (st store) removeWebhook(ctx context.Context, name string) error {
	return st.remove(ctx, webhookPrefix+name)
}

func (st store) webhooks(ctx context.Context) ([]string, error) { return st.list(ctx, webhookPrefix) }

func (st store) putCampaign(ctx context.Context, c *campaign) error {
	return st.put(ctx, campaignPrefix+c.Provider, c)
}

// finishCampaign keeps no more than the date of a campaign.
func (st store) finishCampaign(ctx context.Context, c *campaign) error {
	if err := st.put(ctx, datePrefix+c.Provider, c); err != nil {
		return err
	}
	return st.remove(ctx, campaignPrefix+c.Provider)
}

// removeCampaigns forgets those of a provider, of which no key is left.
func (st store) removeCampaigns(ctx context.Context, provider string) error {
	return errors.Join(st.remove(ctx, campaignPrefix+provider), st.remove(ctx, datePrefix+provider))
}

func (st store) campaigns(ctx context.Context) ([]string, error) { return st.list(ctx, campaignPrefix) }

// campaignsAndDates reads the campaigns that are under way and those that are over.
func (st store) campaignsAndDates(ctx context.Context) ([]*campaign, error) {
	var out []*campaign
	for _, prefix := range []string{datePrefix, campaignPrefix} {
		names, err := st.list(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			c := &campaign{}
			if ok, err := st.get(ctx, prefix+name, c); err != nil {
				return nil, err
			} else if ok {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// shards lists the numbers of the index shards that exist.
func (st store) shards(ctx context.Context) ([]int, error) {
	names, err := st.list(ctx, indexPrefix)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, name := range names {
		n, err := strconv.ParseUint(name, 16, 16)
		if err != nil || n >= indexShards {
			return nil, fmt.Errorf("storage entry %s%s is no index shard", indexPrefix, name)
		}
		numbers = append(numbers, int(n))
	}
	return numbers, nil
}

func shardKey(n int) string { return fmt.Sprintf("%s%03x", indexPrefix, n) }

func (st store) shard(ctx context.Context, n int) ([]packedEntry, error) {
	var entries []packedEntry
	_, err := st.get(ctx, shardKey(n), &entries)
	return entries, err
}

func (st store) putShard(ctx context.Context, n int, entries []packedEntry) error {
	if len(entries) == 0 {
		return st.remove(ctx, shardKey(n))
	}
	return st.put(ctx, shardKey(n), entries)
}

// putIntent logs an intent and gives the id by which it is closed.
func (st store) putIntent(ctx context.Context, in *intent) (string, error) {
	in.Format = storageFormat
	id, err := framework.PutWAL(ctx, st.s, intentKind, in)
	if err != nil {
		return "", fmt.Errorf("write intent: %w", err)
	}
	return id, nil
}

func (st store) closeIntent(ctx context.Context, id string) error {
	if err := framework.DeleteWAL(ctx, st.s, id); err != nil {
		return fmt.Errorf("close intent: %w", err)
	}
	return nil
}

func (st store) hasIntent(ctx context.Context, id string) (bool, error) {
	entry, err := framework.GetWAL(ctx, st.s, id)
	if err != nil {
		return false, fmt.Errorf("read intent %s: %w", id, err)
	}
	return entry != nil, nil
}

// intents reads every open intent.
func (st store) intents(ctx context.Context) ([]intent, error) {
	ids, err := framework.ListWAL(ctx, st.s)
	if err != nil {
		return nil, fmt.Errorf("list intents: %w", err)
	}
	var out []intent
	for _, id := range ids {
		entry, err := framework.GetWAL(ctx, st.s, id)
		if err != nil {
			return nil, fmt.Errorf("read intent %s: %w", id, err)
		}
		if entry == nil {
			continue
		}
		in, err := decodeIntent(id, entry)
		if err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

func decodeIntent(id string, entry *framework.WALEntry) (intent, error) {
	var in intent
	if entry.Kind != intentKind {
		return in, fmt.Errorf("intent %s has kind %q, which this release does not know", id, entry.Kind)
	}
	raw, err := json.Marshal(entry.Data)
	if err != nil {
		return in, fmt.Errorf("intent %s is damaged: %w", id, err)
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("intent %s is damaged: %w", id, hideJSON(err))
	}
	if in.Format < 1 || in.Format > storageFormat {
		return in, fmt.Errorf("intent %s has format %d, this release reads up to %d", id, in.Format, storageFormat)
	}
	if in.Key == "" || in.UID == "" || in.Name == "" {
		return in, fmt.Errorf("intent %s is damaged: a field is missing", id)
	}
	in.id = id
	return in, nil
}

// classify tells Invalidate what kind of thing a storage key holds.
func classify(key string) (kind, name string) {
	for _, prefix := range []string{keyPrefix, providerPrefix, indexPrefix, webhookPrefix, campaignPrefix, datePrefix, framework.WALPrefix} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			return prefix, rest
		}
	}
	return key, ""
}
