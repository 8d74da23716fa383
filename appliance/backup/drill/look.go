package drill

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/config/machine"
)

// look logs in as the drill and compares everything.
func (r *run) look(ctx context.Context, m snapshot.Manifest) error {
	if err := r.login(ctx); err != nil {
		return err
	}
	// It serves once it has given a secret out; without a canary, from here.
	r.canary(ctx, m)
	r.served()
	r.cluster(ctx, m)
	r.rep.Found = &report.Found{}
	before, err := lastFound(r.StateDir)
	if err != nil {
		r.check("last report", report.Note, "", "it can't be compared with: %v", err)
	}
	r.policies(ctx)
	r.mounts(ctx, before)
	r.engine(ctx)
	return nil
}

// served notes that the restored Vault has answered as the live one would.
func (r *run) served() {
	if r.rep.RTOSeconds == 0 {
		r.rep.RTOSeconds = r.Now().Sub(r.rep.StartedAt).Seconds()
	}
}

// login is by the drill's own AppRole, as any machine would.
func (r *run) login(ctx context.Context) error {
	r.client.SetToken("")
	if err := r.client.LoginAppRole(ctx, r.RoleID, r.SecretID); err != nil {
		r.check("approle", report.Fail, "give the drill a secret id that is in the snapshot: run the installer again, take a snapshot, and drill",
			"the restored Vault refuses the drill's login: %s", oneLine(err))
		return fmt.Errorf("%w: without a login there is nothing more to look at", ErrFailed)
	}
	r.check("approle", report.Pass, "", "the drill's own AppRole logs in")
	return nil
}

// canary looks for the secret that was written just before the snapshot; its
// value goes nowhere.
func (r *run) canary(ctx context.Context, m snapshot.Manifest) {
	const (
		written = "see that the canary's login works: strongroom snapshot take tells"
		forged  = "the snapshot is not what its manifest says: look at who may write to the backups"
	)
	mount, path, _ := strings.Cut(snapshot.CanaryPath, "/data/")
	found, err := kv.New(r.client).Read(ctx, mount, path)
	if err != nil {
		r.check("canary", report.Fail, written, "it can't be read: %s", oneLine(err))
		return
	}
	r.served()
	if m.Canary == nil && r.Rehearse != nil {
		r.check("canary", report.Note, "", "none was written before this snapshot, which was taken for the rehearsal")
		return
	}
	if m.Canary == nil {
		r.check("canary", report.Fail, written, "none was written before this snapshot, so nothing says that it holds the newest data")
		return
	}
	if newest := int64(found.Version); newest > m.Canary.Version {
		// Another run has written one between this one's and the snapshot. The one that
		// the manifest names is in the history.
		if found, err = kv.New(r.client).ReadVersion(ctx, mount, path, int(m.Canary.Version)); err != nil {
			r.check("canary", report.Fail, forged, "version %d, which the manifest names, can't be read: %s", m.Canary.Version, oneLine(err))
			return
		}
		if found.Version == 0 {
			r.check("canary", report.Fail, forged, "version %d, which the manifest names, is not in the history of version %d", m.Canary.Version, newest)
			return
		}
	}
	value, _ := found.Data["value"].(string)
	version := int64(found.Version)
	switch {
	case value == "":
		r.check("canary", report.Fail, forged, "version %d should be there, and there is none", m.Canary.Version)
	case version < m.Canary.Version:
		r.check("canary", report.Fail, forged, "version %d is there, %d was written before the snapshot", version, m.Canary.Version)
	case version > m.Canary.Version:
		r.check("canary", report.Fail, forged, "version %d is there, %d was asked for", version, m.Canary.Version)
	case snapshot.CanarySum(value) != m.Canary.SHA256:
		r.check("canary", report.Fail, forged, "version %d is there with another value", version)
	default:
		r.check("canary", report.Pass, "", "version %d with the right value, written %s", version, m.Canary.WrittenAt.Format(time.RFC3339))
		r.age(m, found.Data["time"])
	}
}

// age is how old the data is: by what the canary itself says, inside the snapshot, where
// nobody without the master key could write it.
func (r *run) age(m snapshot.Manifest, written any) {
	text, _ := written.(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		r.check("age", report.Fail, "take a snapshot with this version, and drill again", "the canary in the snapshot does not say when it was written")
		return
	}
	rpo := r.rep.StartedAt.Sub(at)
	r.rep.RPOSeconds = rpo.Seconds()
	const clock = "timedatectl timesync-status; take a snapshot once the clock is right, and drill again"
	switch {
	case r.fetched.ClockDoubt != "":
		r.check("age", report.Undecided, clock, "nobody knows how old the data is: %s", r.fetched.ClockDoubt)
	case m.ClockInDoubt:
		r.check("age", report.Undecided, clock, "nobody knows how old the data is: it was taken by a clock in doubt")
	case rpo < -snapshot.ClockSkew:
		r.check("age", report.Undecided, clock, "nobody knows how old the data is: it was written %s after now", -rpo.Round(time.Second))
	case rpo <= r.MaxRPO:
		r.check("age", report.Pass, "", "the newest data was written %s before the drill began; %s is the most", rpo.Round(time.Second), r.MaxRPO)
	case r.rep.Kind != report.KindDrill:
		r.check("age", report.Note, "", "the newest data was written %s before", rpo.Round(time.Second))
	default:
		r.tooOld = true
		r.check("age", report.Fail, "strongroom snapshot list; systemctl start strongroom-snapshot, and drill again", "the newest data was written %s before the drill began: that is lost if the disk dies now, and %s is the most", rpo.Round(time.Second), r.MaxRPO)
	}
}

func (r *run) cluster(ctx context.Context, m snapshot.Manifest) {
	h, err := r.client.Health(ctx)
	switch {
	case err != nil:
		r.check("cluster", report.Fail, "", "%s", oneLine(err))
		return
	case h.ClusterID != m.ClusterID:
		r.check("cluster", report.Fail, "look at who may write to the backups", "the snapshot holds cluster %q, its manifest says %q", h.ClusterID, m.ClusterID)
	default:
		r.check("cluster", report.Pass, "", "%s", h.ClusterID)
	}
	if r.rep.Programs.Vault == "" {
		r.rep.Programs.Vault = h.Version
	}
}

// policies compares the appliance's own with this program's, and notes the hash
// of each.
func (r *run) policies(ctx context.Context) {
	names, err := r.client.Policies(ctx)
	if err != nil {
		r.check("policies", report.Fail, "", "they can't be listed: %s", oneLine(err))
		return
	}
	found := map[string]string{}
	for _, name := range names {
		if name == "root" {
			continue // it has no text
		}
		text, err := r.client.Policy(ctx, name)
		if err != nil {
			r.check("policies", report.Fail, "", "%q can't be read: %s", name, oneLine(err))
			return
		}
		sum := sha256.Sum256([]byte(text))
		found[name] = hex.EncodeToString(sum[:])
	}
	r.rep.Found.Policies = found
	var missing, other []string
	for _, name := range slices.Sorted(maps.Keys(r.Policies)) {
		sum := sha256.Sum256([]byte(r.Policies[name]))
		switch found[name] {
		case "":
			missing = append(missing, name)
		case hex.EncodeToString(sum[:]):
		default:
			other = append(other, name)
		}
	}
	const remedy = "run the installer again; it writes them"
	switch {
	case len(missing) > 0 && r.Rehearse == nil:
		r.check("policies", report.Fail, remedy, "missing: %s", strings.Join(missing, ", "))
	case len(other) > 0 && r.Rehearse == nil:
		r.check("policies", report.Fail, remedy, "changed: %s", strings.Join(other, ", "))
	case len(missing)+len(other) > 0:
		r.check("policies", report.Note, "", "the new version would write: %s", strings.Join(append(missing, other...), ", "))
	default:
		r.check("policies", report.Pass, "", "%d, the appliance's own %d as installed", len(found), len(r.Policies))
	}
}

// wantMounts and wantAuth are what the appliance itself lives on.
var (
	wantMounts = map[string]string{machine.MountKV + "/": "kv", machine.MountKeys + "/": machine.PluginName}
	wantAuth   = map[string]string{machine.AuthAppRole + "/": "approle", "token/": "token"}
)

func (r *run) mounts(ctx context.Context, before *report.Found) {
	mounts, err := r.client.Mounts(ctx)
	if err != nil {
		r.check("mounts", report.Fail, "", "they can't be listed: %s", oneLine(err))
		return
	}
	found, kinds := map[string]string{}, map[string]string{}
	for path, m := range mounts {
		kinds[path] = m.Type
		found[path] = strings.TrimSpace(m.Type + " " + m.RunningVersion)
		if m.Type == "kv" {
			found[path] = "kv " + m.Options["version"]
		}
	}
	r.rep.Found.Mounts = found
	r.compare("mounts", wantMounts, kinds, beforeOf(before, func(f *report.Found) map[string]string { return f.Mounts }))

	auth, err := r.client.AuthMethods(ctx)
	if err != nil {
		r.check("auth", report.Fail, "", "they can't be listed: %s", oneLine(err))
		return
	}
	methods := map[string]string{}
	for path, m := range auth {
		methods[path] = m.Type
	}
	r.rep.Found.Auth = methods
	r.compare("auth", wantAuth, methods, beforeOf(before, func(f *report.Found) map[string]string { return f.Auth }))
}

func beforeOf(f *report.Found, part func(*report.Found) map[string]string) map[string]string {
	if f == nil {
		return nil
	}
	return part(f)
}

// compare fails what the appliance needs and is not there, and notes what was
// there at the last drill that passed.
func (r *run) compare(name string, want, found, before map[string]string) {
	var bad, gone []string
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if found[path] != want[path] {
			bad = append(bad, fmt.Sprintf("%s is %q, not %q", path, found[path], want[path]))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if _, ok := found[path]; !ok {
			gone = append(gone, path)
		}
	}
	if len(bad) > 0 {
		r.check(name, report.Fail, "compare with the live Vault, and look at older snapshots", "%s", strings.Join(bad, "; "))
		return
	}
	r.check(name, report.Pass, "", "%s", strings.Join(slices.Sorted(maps.Keys(found)), " "))
	if len(gone) > 0 {
		r.check(name, report.Note, "if nobody has removed them, look at older snapshots", "gone since the last drill that passed: %s", strings.Join(gone, " "))
	}
}

// oneLine is an error for a table.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
