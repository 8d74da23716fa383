package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// Manifest is the content of ManifestPath. The doctor compares the machine with
// it, uninstall goes by it.
type Manifest struct {
	Format  int            `json:"format"`
	Version string         `json:"version"` // the installer's
	Files   []ManifestFile `json:"files"`   // by path
}

// ManifestFile is one file.
type ManifestFile struct {
	Path string `json:"path"`
	// SHA256 is of the content, hex; empty for a file that the machine itself
	// changes later, a sealed credential say: of it only mode and owner are
	// known.
	SHA256  string `json:"sha256,omitempty"`
	Mode    string `json:"mode"` // octal, "0644"
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Version string `json:"version"` // of the installer that wrote it
}

// ReadManifest gives what the last run has written down; nil where nothing is.
func ReadManifest(h *host.Host) (*Manifest, error) {
	b, err := h.ReadFile(machine.ManifestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := statefile.Decode(b, machine.ManifestFormat, &m); err != nil {
		return nil, fmt.Errorf("%q: %w", machine.ManifestFile, err)
	}
	return &m, nil
}

// OtherVersion is an error on a machine that runs what another version of the
// installer has installed: to replace that needs a rehearsal and a way back,
// which only upgrade has.
func OtherVersion(h *host.Host, version string) error {
	m, err := ReadManifest(h)
	if err != nil || m == nil || m.Version == version {
		return err
	}
	if _, err := h.Stat(path.Join(machine.BinDir, machine.ProgramName)); errors.Is(err, fs.ErrNotExist) {
		return nil // uninstalled, with its data kept
	} else if err != nil {
		return err
	}
	hint := "run strongroom-installer upgrade, or use the installer of version " + m.Version
	if NewerVersion(m.Version, version) {
		hint = "use the installer of version " + m.Version + ", or a newer one" // there is no way back but by restore
	}
	return operator(hint,
		"version %s is installed here, and this installer is version %s", m.Version, version)
}

// manifest writes down what the steps before it have wanted.
type manifest struct{ *Env }

func (manifest) ID() string    { return "manifest" }
func (manifest) Title() string { return "list of installed files" }

func (s manifest) Check(context.Context) (engine.Diff, error) {
	if err := s.loose(); err != nil {
		return nil, err
	}
	files := maps.Clone(s.wanted)
	if files == nil {
		files = map[string]ManifestFile{}
	}
	stays, err := leftovers(s).stays()
	if err != nil {
		return nil, err
	}
	for _, f := range stays {
		files[f.Path] = f
	}
	m := Manifest{Format: machine.ManifestFormat, Version: s.Version}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if f := files[p]; f.GID != nobody && f.UID != nobody {
			m.Files = append(m.Files, f)
		}
	}
	b, err := statefile.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("installed.json: %w", err)
	}
	return s.file(machine.ManifestFile, bytesSource(b), root(0o644))
}

// want notes a file that a step wants to be there.
func (e *Env) want(p, sum string, a host.Attr) {
	if p == machine.ManifestFile {
		return
	}
	if e.wanted == nil {
		e.wanted = map[string]ManifestFile{}
	}
	e.wanted[p] = ManifestFile{Path: p, SHA256: sum, Mode: fmt.Sprintf("%04o", a.Mode), UID: a.UID, GID: a.GID, Version: e.Version}
}

// loose notes what is made on the machine and is not compared by its content:
// credentials and the keys of the link change; a downloaded Vault is the
// manifest's to remember.
func (s manifest) loose() error {
	credentials := s.wantedCredentials()
	for _, dir := range []string{machine.CredentialDir, machine.TLSDir} {
		names, err := s.Host.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			p := dir + "/" + name
			if p == machine.RootTokenFile || dir == machine.CredentialDir && !credentials[name] {
				continue
			}
			if _, ok := s.wanted[p]; !ok {
				s.want(p, "", root(0o600))
			}
		}
	}
	if _, ok := s.wanted[machine.VaultProgram]; ok {
		return nil
	}
	there, err := s.exists(machine.VaultProgram)
	if err != nil || !there {
		return err
	}
	sum, err := s.sum(machine.VaultProgram)
	if err != nil {
		return err
	}
	s.want(machine.VaultProgram, sum, root(0o755))
	return nil
}
