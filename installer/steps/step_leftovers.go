package steps

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// leftovers takes away what an earlier run has put on the machine and nobody wants any
// more: what the configuration does not name, and what this version does not have. Only
// the list of that run proves that something is ours; what has changed since is set aside
// and told. It comes last, when all that is wanted works.
type leftovers struct{ *Env }

func (leftovers) ID() string    { return "leftovers" }
func (leftovers) Title() string { return "what is no longer wanted" }

// Tidy are the steps that take away what is no longer wanted, by their ids.
func Tidy() []string { return []string{leftovers{}.ID(), manifest{}.ID()} }

func (s leftovers) Check(ctx context.Context) (engine.Diff, error) {
	if s.Upgrading && !engine.Planning(ctx) {
		return nil, nil // it may be wanted again: what goes, goes when all is well
	}
	files, err := s.unwanted()
	if err != nil {
		return nil, err
	}
	var diff engine.Diff
	if s.Config.TLS.Mode != config.TLSFiles {
		// The operator's own certificate with its key, of which the front keeps a copy.
		there, err := s.exists(machine.FrontPEM)
		if err != nil {
			return nil, err
		}
		if there {
			diff = append(diff, engine.Change{What: machine.FrontPEM, From: "the operator's certificate and key", Apply: func(context.Context) error { return s.Host.Remove(machine.FrontPEM) }})
		}
	}
	for _, f := range files {
		c, err := s.away(f)
		if err != nil {
			return nil, err
		}
		diff = append(diff, c...)
	}
	return diff, nil
}

// unwanted are the files of the last run's list that are there and that this one does
// not want. Without a list that can be read, or with that of a newer version, none are.
func (s leftovers) unwanted() ([]ManifestFile, error) {
	if err := manifest(s).loose(); err != nil {
		return nil, err
	}
	m, err := ReadManifest(s.Host)
	if err != nil || m == nil || NewerVersion(m.Version, s.Version) {
		return nil, nil
	}
	var out []ManifestFile
	for _, f := range m.Files {
		if _, wanted := s.wanted[f.Path]; wanted || !removable(f.Path) {
			continue
		}
		there, err := s.exists(f.Path)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, f)
		}
	}
	return out, nil
}

// NewerVersion says that a is newer than b. What has no order is not.
func NewerVersion(a, b string) bool {
	va, errA := version.NewVersion(a)
	vb, errB := version.NewVersion(b)
	return errA == nil && errB == nil && va.GreaterThan(vb)
}

// removable says that a file of the list may go: not what cannot be made again, nor what
// another part takes away, as an upgrade does with plugins.
func removable(file string) bool {
	if strings.HasPrefix(file, machine.DocDir+"/") {
		return true
	}
	for _, dir := range []string{machine.StateDir, machine.VaultData, machine.AuditDir, machine.FrontData, machine.LibDir, machine.BinDir} {
		if strings.HasPrefix(file, dir+"/") {
			return false
		}
	}
	// A file without a sum there is none of the list's to judge, but for credentials.
	return file != machine.EpochFile && file != machine.ConfigFile && file != machine.SSHDFile
}

// away is how one file goes.
func (s leftovers) away(f ManifestFile) (engine.Diff, error) {
	c := engine.Change{What: f.Path, From: "of an earlier run"}
	switch dir, name := path.Split(f.Path); {
	case path.Clean(dir) == machine.CredentialDir && !operatorsCredential(name):
		c.To = "retired, and kept in " + machine.RetiredDir
		c.Apply = func(context.Context) error { return s.retire(f.Path) }
		return engine.Diff{c}, nil
	case path.Clean(dir) == machine.CredentialDir:
		c.Apply = func(context.Context) error { return s.Host.Remove(f.Path) }
		return engine.Diff{c}, nil
	case f.SHA256 == "":
		return nil, nil
	}
	info, err := s.Host.Stat(f.Path)
	if err != nil {
		return nil, err
	}
	ours := info.Type == 0
	if ours {
		sum, err := s.sum(f.Path)
		if err != nil {
			return nil, err
		}
		ours = sum == f.SHA256
	}
	remove := func(context.Context) error { return s.Host.Remove(f.Path) }
	if !ours {
		to := f.Path + machine.Aside + s.Host.Now().UTC().Format("20060102T150405Z")
		c.From, c.To = "of an earlier run, and changed since", "set aside: "+to
		remove = func(context.Context) error {
			s.note("%s was put there by an earlier run and changed since; it is no longer wanted, and kept as %s", f.Path, to)
			return s.Host.Rename(f.Path, to)
		}
	}
	c.Apply = remove
	in := path.Dir(f.Path)
	switch {
	case in == machine.UnitDir:
		c.Apply = func(ctx context.Context) error {
			if name := path.Base(f.Path); !strings.Contains(name, "@.") {
				if err := s.Host.Retire(ctx, name); err != nil {
					return err
				}
			}
			// Commit point: while the file is there, it is all done again.
			if err := remove(ctx); err != nil {
				return err
			}
			return s.Host.ReloadUnits(ctx)
		}
	case path.Dir(in) == machine.UnitDir:
		c.Apply = func(ctx context.Context) error {
			if err := remove(ctx); err != nil {
				return err
			}
			if err := s.Host.ReloadUnits(ctx); err != nil {
				return err
			}
			return s.RestartStale(ctx) // it goes by the drop-in no more
		}
	}
	return engine.Diff{c}, nil
}

// retire keeps key material of which nobody knows whether it is needed once more. It is
// sealed there as it was.
func (s leftovers) retire(file string) error {
	if err := s.Host.Mkdir(machine.RetiredDir, root(0o700)); err != nil {
		return err
	}
	r, err := s.Host.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	to := path.Join(machine.RetiredDir, path.Base(file)+"-"+s.Host.Now().UTC().Format("20060102T150405Z"))
	if err := s.Host.Write(to, r, root(0o600)); err != nil {
		return err
	}
	s.note("the credential %q is no longer wanted, and kept, sealed, as %s", path.Base(file), to)
	return s.Host.Remove(file)
}

// operatorsCredential says whether a credential holds what the operator gave, or what
// Vault makes anew for the asking: it is not kept when it is no longer wanted.
func operatorsCredential(name string) bool {
	name = strings.TrimSuffix(name, machine.NextCredential)
	switch name {
	case machine.CredBackupWebhook, machine.CredAlertWebhook, machine.CredAlertSMTP, machine.CredACMEEAB, machine.CredACMEFallbackEAB, machine.CredACMEDNSToken, machine.CredS3:
		return true
	}
	return strings.HasPrefix(name, machine.CredS3+"-") || slices.ContainsFunc(machine.Jobs(), func(j string) bool {
		return name == machine.CredRoleID(j) || name == machine.CredSecretID(j)
	})
}

// wantedCredentials are the names of those that this configuration and this version need.
func (e *Env) wantedCredentials() map[string]bool {
	out := map[string]bool{machine.CredMasterKey: true, machine.CredDrillKey: true, machine.CredDrillSigningKey: true, machine.CredSnapshotSigningKey: true,
		machine.CredMasterKey + machine.NextCredential: true}
	for _, j := range machine.Jobs() {
		out[machine.CredRoleID(j)], out[machine.CredSecretID(j)] = true, true
	}
	for _, name := range e.backupCredentials() {
		out[name] = true
	}
	for name := range e.Given {
		out[name] = true
	}
	return out
}

// stays is what of the last run's list the new one has to keep, as it has yet to go.
func (s leftovers) stays() ([]ManifestFile, error) {
	if !s.Upgrading {
		return nil, nil
	}
	files, err := s.unwanted()
	if err != nil {
		return nil, fmt.Errorf("what is no longer wanted: %w", err)
	}
	return files, nil
}
