package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func (b *backend) changeKey(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*logical.Response, error) {
	var resp *logical.Response
	err := b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) (err error) {
		if w.rec.Deleting != nil {
			resp, err = w.createAgain(ctx, d)
			return err
		}
		next := w.rec.clone()
		if err := b.takeDef(d, &next.Def); err != nil {
			return err
		}
		if !reflect.DeepEqual(next.Def.Parameters, w.rec.Def.Parameters) {
			was := next.Def.Parameters
			next.Def.Parameters = w.rec.Def.Parameters
			next.keepParameters()
			next.Def.Parameters = was
		}
		if next.Def.Provider != w.rec.Def.Provider {
			return refuse("delete the key and define it anew", "key %q is made by provider %q, which cannot become %q",
				name, w.rec.Def.Provider, next.Def.Provider)
		}
		if _, err := b.checkDef(ctx, name, &next.Def, &w.rec.Def); err != nil {
			return err
		}
		resp = b.changePromise(next, d.Get("force").(bool))
		if err := w.save(ctx, next); err != nil {
			return err
		}
		b.emit(ctx, "key-update", name)
		return nil
	})
	return resp, err
}

// changePromise lets a longer grace hold for the current version at once, and
// a shorter one only by force, because readers were promised more.
func (b *backend) changePromise(next *keyRecord, force bool) *logical.Response {
	cur := next.Life.Current()
	if cur == nil {
		return nil
	}
	grace := b.config.get().graceOf(&next.Def)
	resp := &logical.Response{}
	switch {
	case grace > cur.Grace:
		cur.SetGrace(grace)
	case grace < cur.Grace && force:
		resp.AddWarning(fmt.Sprintf("readers of version %d were promised %s, it is now %s: some may use it after it is revoked", cur.Number, cur.Grace, grace))
		cur.SetGrace(grace)
	case grace < cur.Grace:
		resp.AddWarning(fmt.Sprintf("readers of version %d were promised %s: the shorter grace holds from the next version on; force=true makes it hold now", cur.Number, cur.Grace))
	}
	return resp
}

// takeDef lays what the request says over a definition.
func (b *backend) takeDef(d *framework.FieldData, def *keyDef) error {
	takeString(d, "provider", &def.Provider)
	takeString(d, "rotation_schedule", &def.RotationSchedule)
	takeString(d, "time_zone", &def.TimeZone)
	takeString(d, "spread_group", &def.SpreadGroup)
	takeBool(d, "disable_automated_rotation", &def.Disabled)
	takeBool(d, "hash_old_versions", &def.HashOld)
	takeInt(d, "max_versions", &def.MaxVersions)
	if err := errors.Join(
		takeDuration(d, "rotation_period", &def.RotationPeriod),
		takeDuration(d, "rotation_window", &def.RotationWindow),
		takeDuration(d, "grace_period", &def.GracePeriod),
		takeDuration(d, "spread_distance", &def.SpreadDistance),
	); err != nil {
		return err
	}
	if v, ok := d.GetOk("parameters"); ok {
		params, err := normalizeJSON(v.(map[string]any))
		if err != nil {
			return refuse("", "parameters: %v", err)
		}
		def.Parameters = params
	}
	if v, ok := d.GetOk("custom_metadata"); ok {
		meta, err := stringMap(v.(map[string]any), "custom_metadata")
		if err != nil {
			return err
		}
		def.Metadata = meta
	}
	return def.keepWritten(d.Raw, b.config.get())
}

// checkDef reports every fault of a definition at once, and gives its provider.
// old is the one before, which may go on without a provider that can be built.
func (b *backend) checkDef(ctx context.Context, name string, def, old *keyDef) (provider.Provider, error) {
	if def.Provider == "" {
		return nil, refuse("", "key %q needs a provider", name)
	}
	p, err := b.provider(ctx, def.Provider)
	if err != nil && (old == nil || old.Provider != def.Provider || old.HashOld != def.HashOld || !reflect.DeepEqual(old.Parameters, def.Parameters)) {
		return nil, err
	}
	var errs []error
	if err == nil {
		errs = append(errs, p.ValidateParameters(def.Parameters))
	}
	caps, known := b.capabilities(def.Provider)
	errs = append(errs, checkMetadata(def.Metadata), checkParameterSize(def.Parameters))
	if _, err := b.config.get().policyOf(def); err != nil {
		errs = append(errs, err)
	}
	if def.RotationSchedule != "" && def.RotationPeriod != 0 {
		errs = append(errs, errors.New("rotation_period and rotation_schedule: only one of the two can decide: rotation_period=0 leaves it to the schedule, an empty rotation_schedule to the period"))
	}
	if def.GracePeriod != 0 && (def.GracePeriod < lifecycle.MinGrace || def.GracePeriod > lifecycle.MaxGrace) {
		errs = append(errs, fmt.Errorf("grace_period %s: must be from %s to %s", def.GracePeriod, lifecycle.MinGrace, lifecycle.MaxGrace))
	}
	if def.MaxVersions != 0 && (def.MaxVersions < minVersions || def.MaxVersions > maxVersions) {
		errs = append(errs, fmt.Errorf("max_versions %d: must be from %d to %d", def.MaxVersions, minVersions, maxVersions))
	}
	if def.SpreadDistance < 0 || def.SpreadDistance > maxSpread {
		errs = append(errs, fmt.Errorf("spread_distance %s: must be from 0 to %s", def.SpreadDistance, maxSpread))
	}
	if def.SpreadGroup != "" && checkKeyName(def.SpreadGroup) != nil {
		errs = append(errs, fmt.Errorf("spread_group %.80q: the same characters as in a key's name are allowed", def.SpreadGroup))
	}
	if def.HashOld && known && !caps.Local {
		errs = append(errs, fmt.Errorf("hash_old_versions: provider %q is not local, its old keys must be kept to be tested and revoked", def.Provider))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, refuse("", "key %q: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return p, nil
}

func checkMetadata(meta map[string]string) error {
	if len(meta) > maxMetadata {
		return fmt.Errorf("custom_metadata: %d entries, at most %d are allowed", len(meta), maxMetadata)
	}
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if k == "" || len(k) > maxMetadataKey || len(meta[k]) > maxMetadataValue {
			return fmt.Errorf("custom_metadata %.80q: names have 1 to %d bytes, values up to %d", k, maxMetadataKey, maxMetadataValue)
		}
	}
	return nil
}

func checkParameterSize(params map[string]any) error {
	entry, err := encodeEntry("parameters", params)
	if err != nil {
		return err
	}
	if len(entry.Value) > maxParameters {
		return fmt.Errorf("parameters: more than %d bytes", maxParameters)
	}
	return nil
}

func (b *backend) handleKeyDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	resp, err := b.onKey(takeKeyDelete)(ctx, req, d)
	if errors.Is(err, errNoKey) {
		return nil, nil
	}
	return resp, err
}

func takeKeyDelete(d *framework.FieldData) (verb, error) {
	revoke, now := d.Get("revoke").(bool), d.Get("revoke_now").(bool)
	if now && !revoke {
		return nil, refuse("", "revoke=false and revoke_now=true contradict each other")
	}
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		if used := w.b.providers.usingKey(w.rec.Name); len(used) > 0 {
			return nil, refuse("give it another credential first", "key %q is the credential of provider %q", w.rec.Name, used[0])
		}
		if err := w.delete(ctx, revoke, now); err != nil || !now {
			return nil, err
		}
		var resp *logical.Response
		for i := range w.rec.Life.Versions {
			n := w.rec.Life.Versions[i].Number
			if err := w.notDead(n); err != nil {
				if resp == nil {
					resp = &logical.Response{}
				}
				resp.AddWarning(fmt.Sprintf("version %d is not revoked at the provider yet, the engine goes on trying: %s", n, publicMessage(err)))
			}
		}
		return resp, nil
	}, nil
}

// delete hides a key and sets the end of each of its versions.
func (w *work) delete(ctx context.Context, revoke, immediately bool) error {
	now := w.now()
	if revoke {
		// While its versions live, what they left can be told from them. Later tries follow.
		if err := w.lastSweep(ctx); err != nil {
			w.b.Logger().Warn("what a deleted key may have left at its provider is looked for later", "key", w.rec.Name, "error", publicMessage(err))
		}
	}
	next, promised := w.rec.clone(), w.promisedUntil()
	if next.Deleting == nil {
		next.Deleting = &deletion{At: now}
	}
	if revoke && w.sweeps() {
		next.Sweep = now
	}
	next.Uncertain = nil // the intent stays, and is looked for as long as the record is there
	for v := range next.Life.Living() {
		at := now
		if v.State == lifecycle.Current && !immediately {
			// Where no two keys live, readers were promised it until the next rotation.
			at, v.PromisedUntil = later(now.Add(v.Grace), promised), promised
		} else if v.State == lifecycle.Grace && !immediately {
			at = v.RevokeAt
		}
		if v.State != lifecycle.Grace {
			v.State, v.Retired = lifecycle.Grace, now
		}
		if v.Compromised {
			at = v.RevokeAt
		}
		v.RevokeAt, v.Ending = at, nil
		if !revoke {
			v.Keep, v.RevokeAt = true, now
		}
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "key-delete", next.Name)
	return w.b.advance(ctx, w)
}
