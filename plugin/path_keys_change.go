package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func (b *backend) changeKey(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*logical.Response, error) {
	var resp *logical.Response
	err := b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) error {
		if w.rec.Deleting != nil {
			return refuse("wait until its last version is revoked, or delete it with revoke_now=true",
				"key %q is being deleted", name)
		}
		next := w.rec.clone()
		if err := b.takeDef(d, &next.Def); err != nil {
			return err
		}
		if next.Def.Provider != w.rec.Def.Provider {
			return refuse("delete the key and define it anew", "key %q is made by provider %q, which cannot become %q",
				name, w.rec.Def.Provider, next.Def.Provider)
		}
		if _, err := b.checkDef(ctx, name, &next.Def); err != nil {
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
		cur.Grace = grace
	case grace < cur.Grace && force:
		resp.AddWarning(fmt.Sprintf("readers of version %d were promised %s, it is now %s: some may use it after it is revoked", cur.Number, cur.Grace, grace))
		cur.Grace = grace
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
	return nil
}

// checkDef reports every fault of a definition at once, and gives its provider.
func (b *backend) checkDef(ctx context.Context, name string, def *keyDef) (provider.Provider, error) {
	if def.Provider == "" {
		return nil, refuse("", "key %q needs a provider", name)
	}
	p, err := b.provider(ctx, def.Provider)
	if err != nil {
		return nil, err
	}
	caps := p.Capabilities()
	errs := []error{p.ValidateParameters(def.Parameters), checkMetadata(def.Metadata), checkParameterSize(def.Parameters)}
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
	if def.HashOld && !caps.Local {
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
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	if used := b.providers.usingKey(name); len(used) > 0 {
		return nil, refuse("give it another credential first", "key %q is the credential of provider %q", name, used[0])
	}
	revoke, now := d.Get("revoke").(bool), d.Get("revoke_now").(bool)
	if now && !revoke {
		return nil, refuse("", "revoke=false and revoke_now=true contradict each other")
	}
	err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) error {
		return w.delete(ctx, revoke, now)
	})
	if errors.Is(err, errNoKey) {
		return nil, nil
	}
	return nil, err
}

// delete hides a key and sets the end of each of its versions.
func (w *work) delete(ctx context.Context, revoke, immediately bool) error {
	now := w.now()
	next := w.rec.clone()
	if next.Deleting == nil {
		next.Deleting = &deletion{At: now}
	}
	next.Uncertain = nil // the intent stays, and is looked for as long as the record is there
	for i := range next.Life.Versions {
		v := &next.Life.Versions[i]
		if !v.Alive() {
			continue
		}
		at := now
		if v.State == lifecycle.Current && !immediately {
			at = now.Add(v.Grace)
		} else if v.State == lifecycle.Grace && !immediately {
			at = v.RevokeAt
		}
		if v.State != lifecycle.Grace {
			v.State, v.Retired = lifecycle.Grace, now
		}
		v.RevokeAt = at
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
