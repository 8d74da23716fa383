// Package apikeys is a Vault secrets engine that issues, rotates and revokes
// API keys at the services that know them, and serves them so that clients may
// cache them.
//
// It is not a key-value store, and it makes no leases: a key belongs to the
// mount, not to who reads it. What a service can do is behind the provider
// interface; the rules by which versions live are in the package lifecycle;
// where things lie in storage only store.go knows.
package apikeys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// Options are what the engine is built from.
type Options struct {
	// Providers maps a type, as in providers/NAME type=…, to its factory.
	Providers map[string]provider.Factory
	// Version is reported to Vault as the running version, with its leading v.
	Version string
	Clock   Clock
	Rand    io.Reader
	// EpochFile names the appliance's epoch file; empty: there is no appliance.
	EpochFile string
	// ChangedFile is touched after each rotation; empty: nobody waits for it.
	ChangedFile string
	// Tick is how often the scheduler looks for due work; 0: the caller does it.
	Tick time.Duration
}

// backend is one mount.
type backend struct {
	*framework.Backend
	opts Options

	clock     *engineClock
	fence     *fence
	index     *keyIndex
	cache     *recordCache
	locks     *keyLocks
	providers *providerTable
	config    *configHolder
	intents   *intentTable
	campaigns *campaigns
	trials    *trials
	health    *providerHealth
	waiters   *waiters
	hooks     *dispatcher
	stats     counters
	// changedFailed: ChangedFile could not be touched the last time.
	changedFailed atomic.Bool

	// readCreds handles a read of creds/NAME, whose fields are readFields.
	readCreds  framework.OperationFunc
	readFields map[string]*framework.FieldSchema

	// startMu makes the start happen once; ready tells that it has succeeded.
	startMu sync.Mutex
	ready   atomic.Bool

	stop    context.CancelFunc
	stopped context.Context
	running sync.WaitGroup // the scheduler and its workers
	wake    chan struct{}
	// lastFlush is when the index was last stored, in unix seconds.
	lastFlush atomic.Int64
	// lastTick is when the scheduler last looked; nil: never.
	lastTick atomic.Pointer[tickTime]
	// clockReported is the lifecycle.ClockState that was last told.
	clockReported atomic.Value
	// lostIntent: the write of an intent has failed, storage must be looked at.
	lostIntent atomic.Bool
	// interrupted: a campaign may have to be gone on with.
	interrupted atomic.Bool
	// look is what storage says has to be looked at.
	lookMu sync.Mutex
	look   look

	// patience is how long an unload waits for calls to providers.
	patience time.Duration

	storage logical.Storage // the mount's view, for work that no request carries
}

// unloadPatience keeps a slow provider from holding up Vault's own shutdown. What
// is cut off is what a crash leaves, and is recovered from in the same way.
const unloadPatience = 10 * time.Second

// Factory gives the function by which Vault makes a mount.
func Factory(opts Options) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		b, err := newBackend(opts)
		if err != nil {
			return nil, err
		}
		if err := b.Setup(ctx, conf); err != nil {
			return nil, fmt.Errorf("set up the mount: %w", err)
		}
		b.storage = conf.StorageView
		return b, nil
	}
}

func newBackend(opts Options) (*backend, error) {
	if opts.Clock == nil || opts.Rand == nil || len(opts.Providers) == 0 {
		return nil, errors.New("clock, randomness and providers must be given")
	}
	b := &backend{
		opts:      opts,
		clock:     newEngineClock(opts.Clock),
		fence:     newFence(opts.EpochFile),
		index:     newKeyIndex(),
		cache:     newRecordCache(defaultConfig().CacheBytes),
		locks:     newKeyLocks(),
		config:    newConfigHolder(),
		intents:   newIntentTable(),
		campaigns: newCampaigns(),
		trials:    newTrials(),
		health:    newProviderHealth(),
		waiters:   newWaiters(),
		wake:      make(chan struct{}, 1),
		providers: newProviderTable(),
	}
	b.hooks = newDispatcher(opts.Clock, func(msg string, args ...any) { b.Logger().Warn(msg, args...) })
	b.patience = unloadPatience
	b.stopped, b.stop = context.WithCancel(context.Background())
	b.Backend = &framework.Backend{
		Help:           helpText,
		BackendType:    logical.TypeLogical,
		RunningVersion: opts.Version,
		PathsSpecial:   &logical.Paths{SealWrapStorage: sealWrapPaths()},
		Paths:          b.paths(),
		InitializeFunc: b.initialize,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	return b, nil
}

// paths is the table of every path; the order matters only for speed.
func (b *backend) paths() []*framework.Path {
	return framework.PathAppend(
		b.pathCreds(),
		b.pathVerify(),
		b.pathRotate(),
		b.pathVersions(),
		b.pathCheck(),
		b.pathRollback(),
		b.pathImport(),
		b.pathResolve(),
		b.pathKeys(),
		b.pathProviderRotate(),
		b.pathProviderTrial(),
		b.pathProviders(),
		b.pathWebhooks(),
		b.pathConfig(),
		b.pathReconcile(),
		b.pathStatus(),
		b.pathMetrics(),
	)
}

const helpText = `
The apikeys secrets engine rotates API keys and serves them.

A provider (providers/NAME) is a connection to the service that issues keys;
a key (keys/NAME) is one credential there, with a rotation period and a grace
period in which the old version stays valid. Read the current version at
creds/NAME: the answer has no lease, and its cache_ttl says for how many
seconds it may be used without asking again.
`

// writable tells whether this node may write: the active one of a primary, or
// of a secondary where the mount is local.
func (b *backend) writable() bool {
	sys := b.System()
	if sys == nil {
		return false
	}
	state := sys.ReplicationState()
	if state.HasState(consts.ReplicationPerformanceStandby) || state.HasState(consts.ReplicationDRSecondary) {
		return false
	}
	return sys.LocalMount() || !state.HasState(consts.ReplicationPerformanceSecondary)
}

// initialize is called when the mount is ready to be used. A start that fails
// on storage does not keep Vault from its unseal: it is tried again by the
// scheduler and by every request.
func (b *backend) initialize(ctx context.Context, req *logical.InitializationRequest) error {
	if b.storage == nil {
		b.storage = req.Storage
	}
	if err := b.start(ctx, req.Storage); err != nil {
		b.Logger().Error("start failed, it will be tried again", "error", err)
	}
	if b.opts.Tick > 0 {
		b.running.Add(1)
		go b.loop()
	}
	return nil
}

// start reads what the engine must know before it answers anything.
func (b *backend) start(ctx context.Context, s logical.Storage) error {
	if b.ready.Load() {
		return nil
	}
	b.startMu.Lock()
	defer b.startMu.Unlock()
	if b.ready.Load() {
		return nil
	}
	st := store{s}
	if err := b.config.load(ctx, st); err != nil {
		return err
	}
	b.cache.resize(b.config.get().CacheBytes)
	if err := b.clock.resume(ctx, st); err != nil {
		return err
	}
	if err := b.index.load(ctx, st); err != nil {
		return err
	}
	if err := b.providers.load(ctx, st); err != nil {
		return err
	}
	fresh := b.index.size() == 0 && b.providers.size() == 0
	if err := b.fence.raise(ctx, st, b.writable(), fresh, func() (string, error) { return b.randomID(mountIDLength) }); err != nil {
		return err
	}
	if err := b.hooks.load(ctx, st); err != nil {
		return err
	}
	if err := b.campaigns.load(ctx, st); err != nil {
		return err
	}
	if err := b.trials.load(ctx, st); err != nil {
		return err
	}
	if err := b.rescan(ctx, st); err != nil {
		return err
	}
	if err := b.resumeLooks(ctx, st); err != nil {
		return err
	}
	b.interrupted.Store(true)
	b.ready.Store(true)
	return nil
}

// invalidate is Vault's word that another node has written an entry.
func (b *backend) invalidate(ctx context.Context, key string) {
	if !b.ready.Load() || b.storage == nil {
		return
	}
	st := store{b.storage}
	var err error
	switch kind, name := classify(key); kind {
	case keyPrefix:
		b.cache.drop(name)
		b.waiters.notify(name)
	case providerPrefix:
		b.cache.purge()
		err = b.providers.reload(ctx, st, name)
	case indexPrefix:
		var n int
		if _, err = fmt.Sscanf(name, "%03x", &n); err == nil && n >= 0 && n < indexShards {
			err = b.index.invalidate(ctx, st, n)
		}
	case campaignPrefix, datePrefix:
		err = b.campaigns.load(ctx, st)
		b.cache.purge()
		b.waiters.endAll()
	case webhookPrefix:
		err = b.hooks.reload(ctx, st, name)
	case configKey:
		b.cache.purge()
		err = b.config.load(ctx, st)
	case metaKey:
		err = b.fence.raise(ctx, st, false, false, nil)
	}
	if err != nil {
		// What could not be re-read must not be served: the next request starts over.
		b.Logger().Error("invalidation failed, the mount is read anew", "entry", key, "error", err)
		b.ready.Store(false)
		b.index.unload()
		b.cache.purge()
	}
}

// clean ends the scheduler and every wait, and leaves storage as up to date
// as it can. It revokes nothing: disabling the mount never does.
func (b *backend) clean(ctx context.Context) {
	b.stop()
	b.waiters.closeAll()
	finished := make(chan struct{})
	go func() {
		b.running.Wait()
		close(finished)
	}()
	waitFor(ctx, finished, b.patience)
	b.hooks.close()
	select {
	case <-finished:
	default:
		b.Logger().Warn("unloaded while a provider had not answered: the next start clears up")
		return
	}
	if !b.ready.Load() || b.storage == nil || !b.writable() {
		return
	}
	st := store{b.storage}
	err := errors.Join(b.index.flush(ctx, st), b.clock.save(ctx, st, true))
	if err == nil && b.index.looks("") == 0 {
		err = st.put(ctx, cleanKey, true)
	}
	if err != nil {
		b.Logger().Warn("the last flush failed; the next start has more to look at", "error", err)
	}
}

// mapFields are the fields whose value is an object; see unpackMap.
func mapFields() []string {
	return []string{"settings", "credential", "parameters", "custom_metadata", "values"}
}

// HandleRequest is the logical.Backend implementation.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	if resp, ok, err := b.plainRead(ctx, req); ok {
		return resp, err
	}
	if err := b.checkTypes(req); err != nil {
		return logical.ErrorResponse(err.Error()), nil
	}
	return b.Backend.HandleRequest(ctx, req)
}

// HandleExistenceCheck is the logical.Backend implementation.
func (b *backend) HandleExistenceCheck(ctx context.Context, req *logical.Request) (checkFound, exists bool, err error) {
	if err := b.checkTypes(req); err != nil {
		return false, false, errutil.UserError{Err: err.Error()}
	}
	return b.Backend.HandleExistenceCheck(ctx, req)
}

// checkTypes refuses fields of a wrong type before the framework does, whose
// errors quote the value: a secret that was given twice is a list.
func (b *backend) checkTypes(req *logical.Request) error {
	path := b.Backend.Route(req.Path)
	if path == nil {
		return nil
	}
	if req.Operation == logical.CreateOperation || req.Operation == logical.UpdateOperation {
		for _, field := range mapFields() {
			if err := unpackMap(req, field); err != nil {
				return err
			}
		}
	}
	var wrong []string
	hint := ""
	for name, v := range req.Data {
		if path.Fields[name] == nil {
			continue
		}
		one := framework.FieldData{Raw: map[string]any{name: v}, Schema: path.Fields}
		if _, _, err := one.GetOkErr(name); err != nil {
			what := kindOf(v)
			if text, ok := v.(string); ok && path.Fields[name].Type != framework.TypeString && len(text) < maxQuoted {
				what = strconv.Quote(text) // too short for a secret in the wrong field
			}
			if kindOf(v) == "a list" {
				hint = "a field that is given twice is a list"
			}
			wrong = append(wrong, fmt.Sprintf("%s must be %s, and not %s", name, path.Fields[name].Type, what))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return refuse(hint, "%s", strings.Join(wrong, "; "))
}

// maxQuoted is up to which length the text of a wrong value is shown, in bytes.
const maxQuoted = 16

func kindOf(v any) string {
	switch v.(type) {
	case []any, []string:
		return "a list"
	case map[string]any:
		return "an object"
	case string:
		return "that text"
	case nil:
		return "nothing"
	}
	return "that"
}

// handle makes sure that the start has succeeded before a handler runs.
func (b *backend) handle(h framework.OperationFunc) framework.OperationFunc {
	checked := operation(h)
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		if !b.ready.Load() {
			if err := b.start(ctx, req.Storage); err != nil {
				return nil, fmt.Errorf("the mount could not be read: %w", err)
			}
		}
		return checked(ctx, req, d)
	}
}

// reads and writes are operations as path tables name them. Writes go to the
// active node of the primary.
func (b *backend) reads(h framework.OperationFunc, summary string) framework.OperationHandler {
	return &framework.PathOperation{Callback: b.handle(h), Summary: summary}
}

func (b *backend) writes(h framework.OperationFunc, summary string) framework.OperationHandler {
	return &framework.PathOperation{
		Callback: b.handle(h), Summary: summary,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
	}
}
