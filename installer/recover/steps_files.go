package recover

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// filesStep unpacks what was kept beside the snapshot: the front's certificates,
// so that no new one is ordered, and the operator's own files. Before it stands
// the note that a recovery has begun here.
type filesStep struct{ *Recovery }

func (filesStep) ID() string    { return "recover-files" }
func (filesStep) Title() string { return "certificates and files of the snapshot" }

func (s filesStep) Check(ctx context.Context) (engine.Diff, error) {
	if !s.State.Restored.IsZero() {
		return nil, nil
	}
	var diff engine.Diff
	noted, err := LoadState(s.Env.Host.FS)
	if err != nil {
		return nil, err
	}
	if noted == nil {
		diff = append(diff, engine.Change{What: StatePath, To: "recovery of " + s.State.ID, Apply: func(context.Context) error {
			return s.State.save(s.Env.Host)
		}})
	}
	if s.Found.Files == nil {
		return diff, nil
	}
	u, err := s.Found.Files.Plan(ctx, restore.UnpackOptions{Root: s.Root, Want: wanted})
	if err != nil {
		return nil, err
	}
	// What is newer here is of this machine: a run that went on has made it.
	if n := len(u.New); n > 0 {
		diff = append(diff, engine.Change{What: "files beside the snapshot", To: fmt.Sprintf("%d unpacked", n), Apply: func(ctx context.Context) error {
			owner, err := s.Env.UnpackedOwner()
			if err != nil {
				return err
			}
			missing := map[string]bool{}
			for _, name := range u.New {
				missing[name] = true
			}
			_, err = s.Found.Files.Unpack(ctx, restore.UnpackOptions{Root: s.Root, Owner: owner, Want: func(n string) bool { return missing[n] }})
			return err
		}})
	}
	return diff, nil
}

// wanted are the certificates and the operator's own files: without what is the old
// machine's alone, and the configuration, which this machine has already.
func wanted(name string) bool {
	at := "/" + name
	if restore.Own(name) || at == machine.ConfigFile {
		return false
	}
	return strings.HasPrefix(at, machine.FrontData+"/") || strings.HasPrefix(at, machine.Etc+"/")
}

// certificateStep brings the operator's own certificate back, which preflight
// wants to see.
type certificateStep struct{ *Recovery }

func (certificateStep) ID() string    { return "recover-certificate" }
func (certificateStep) Title() string { return "the operator's certificate" }

func (s certificateStep) needed() bool {
	return s.Env.Config.TLS.Mode == config.TLSFiles && s.Found != nil && s.Found.Files != nil
}

func (s certificateStep) Check(ctx context.Context) (engine.Diff, error) {
	tls := s.Env.Config.TLS
	o := restore.UnpackOptions{Root: s.Root, Want: func(name string) bool { return "/"+name == tls.CertFile || "/"+name == tls.KeyFile }}
	u, err := s.Found.Files.Plan(ctx, o)
	if err != nil || len(u.New) == 0 {
		return nil, err
	}
	missing := u.New
	o.Want = func(name string) bool { return name == missing[0] || name == missing[len(missing)-1] }
	return engine.Diff{{What: "certificate and key", To: "as beside the snapshot", Apply: func(ctx context.Context) error {
		_, err := s.Found.Files.Unpack(ctx, o)
		return err
	}}}, nil
}

// keyStep puts the escrow back, then the master key from it. The step of the
// installation that would make one finds it there.
type keyStep struct{ *Recovery }

func (keyStep) ID() string    { return "recover-master-key" }
func (keyStep) Title() string { return "escrow and master key put back" }

func (s keyStep) Check(ctx context.Context) (engine.Diff, error) {
	var diff engine.Diff
	for _, f := range s.Escrow.Files {
		there, err := s.Env.HasEscrow(f.Name)
		if err != nil {
			return nil, err
		}
		if there {
			continue
		}
		diff = append(diff, engine.Change{What: machine.EscrowDir + "/" + f.Name, To: "as given", Apply: func(context.Context) error {
			return s.Env.PutEscrow(f.Name, f.Sealed, f.Plain, f.Checks)
		}})
	}
	// The keys of the jobs, which are made anew, join it.
	if s.Escrow.Keyring != nil {
		there, err := s.Env.HasEscrow(path.Base(machine.KeyringEscrow))
		if err != nil {
			return nil, err
		}
		if !there {
			diff = append(diff, engine.Change{What: machine.KeyringEscrow, To: "as given", Apply: func(context.Context) error {
				text, err := s.Escrow.Keyring.Encode()
				if err != nil {
					return err
				}
				return s.Env.Host.Write(machine.KeyringEscrow, bytes.NewReader(text), host.Attr{Mode: 0o600})
			}})
		}
	}
	sealed, err := s.Env.HasMasterKey()
	if err != nil {
		return nil, err
	}
	if !sealed {
		diff = append(diff, engine.Change{What: "master key", To: s.Escrow.MasterKey.Fingerprint() + ", sealed for the KMS", Apply: func(ctx context.Context) error {
			return s.Env.PutMasterKey(ctx, s.Escrow.MasterKey)
		}})
	}
	return diff, nil
}
