// Package demo shows the whole appliance at work in one folder, as an ordinary
// user: it composes the packages that the installed appliance is made of, in
// the order in which the installer does, and takes everything away again.
//
// It is not an installation: nothing survives it, unless asked to be kept.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/recipient"
)

// Options of a demo.
type Options struct {
	Dir    string // empty for a temporary one; else empty or not there yet
	Keep   bool   // leave the folder when done
	Once   bool   // end after the last step, in place of waiting for the end of ctx
	Listen string // the front's address on loopback; port 0 for a free one
	// Recipients can open the escrow afterwards. Without any a throw-away
	// identity is made, and what is kept can never be started again.
	Recipients []recipient.Recipient
	Programs   scratch.Programs
	Version    string // this program's, for the snapshot's manifest
	Out        io.Writer
	Width      int // of the terminal, columns; 0 for no terminal
}

// stepPatience bounds one step. A step takes a second or two; on a starved
// machine it may take many times that.
const stepPatience = 2 * time.Minute

// run is one demo under way. Everything secret in it is in memory only.
type run struct {
	o    Options
	show *printer
	set  *proc.Set

	// What opens the escrow and the snapshots, made for this run.
	identity *age.X25519Identity
	keyset   *kms.Keyset
	vault    *scratch.Vault
	front    *proc.Child

	pluginVersion string
	root          *vaultapi.Client // root token, over the unix socket, until it is revoked
	user          *vaultapi.Client // the demo user, through the front
	userPassword  string
	snapshotRole  appRole
	snapshots     *snapshot.Dir
	clusterID     string

	firstKey key
}

// step is one line of the demo. do returns what it has to show.
type step struct {
	title string
	do    func(*run, context.Context) (string, error)
}

var steps = []step{
	{"Vault and its KMS run", (*run).startVault},
	{"Vault is initialised, keys in escrow", (*run).initialise},
	{"two audit devices write", (*run).enableAudit},
	{"the plugin is registered and mounted", (*run).mountPlugin},
	{"KV v2 is at secret/", (*run).mountKV},
	{"the front serves TLS", (*run).startFront},
	{"a user logs in, the root token is gone", (*run).replaceRoot},
	{"a key is issued", (*run).issueKey},
	{"the key is rotated", (*run).rotateKey},
	{"a conditional read answers 304", (*run).conditionalRead},
	{"Vault, killed, unseals by itself", (*run).killVault},
	{"a snapshot is taken, age-encrypted", (*run).takeSnapshot},
	{"the snapshot is verified", (*run).verifySnapshot},
}

// Run performs the demo. Whatever ends it, no process of it is left, and no
// file unless o.Keep.
func Run(ctx context.Context, o Options) (err error) {
	folder, err := openFolder(o.Dir)
	if err != nil {
		return err
	}
	r := &run{o: o, show: newPrinter(o.Out, o.Width), set: proc.NewSet()}
	r.o.Dir = folder.path
	defer func() {
		// Processes first: they write into the folder.
		err = errors.Join(err, r.set.Close(), folder.leave(o.Keep))
	}()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	r.show.begin(r.o.Dir)
	for _, s := range steps {
		if err := r.step(ctx, s); err != nil {
			return err
		}
	}
	if o.Once {
		r.show.end(r.ending())
		return nil
	}
	r.show.end(r.howToUse())
	return r.stay(ctx)
}

// prepare checks what can be checked before anything is started.
func (r *run) prepare(ctx context.Context) error {
	// Before a folder full of logs has to be read for it.
	if _, err := scratch.ServerOf(ctx, r.o.Programs.Vault); err != nil {
		return err
	}
	version, err := scratch.PluginVersion(ctx, r.o.Programs.Plugin)
	if err != nil {
		return err
	}
	r.pluginVersion = "v" + version // as Vault's catalog has it
	if r.o.Listen, err = freeListen(r.o.Listen); err != nil {
		return err
	}
	if r.identity, err = age.GenerateX25519Identity(); err != nil {
		return fmt.Errorf("make an age identity: %w", err)
	}
	if r.keyset, err = kms.NewKeyset(); err != nil {
		return err
	}
	return nil
}

func (r *run) step(ctx context.Context, s step) error {
	stepCtx, cancel := context.WithTimeoutCause(ctx, stepPatience, fmt.Errorf("not done within %v", stepPatience))
	defer cancel()
	done := r.show.start(s.title)
	detail, err := s.do(r, stepCtx)
	done(detail, err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ErrInterrupted
	case diskFull(r.o.Dir):
		// Vault says no more than "internal error" when it cannot write.
		return fmt.Errorf("%s: %w: %w", s.title, syscall.ENOSPC, err)
	default:
		return fmt.Errorf("%s: %w", s.title, err)
	}
}

// diskFull tells whether nothing more can be written below dir.
func diskFull(dir string) bool {
	const enough = 1 << 20 // bytes
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < enough
}

// stay returns when ctx ends, or with the fault of the first process that is
// gone for good.
func (r *run) stay(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.vault.KMS.Done():
		return r.vault.KMS.Err()
	case <-r.vault.Process.Done():
		return r.vault.Process.Err()
	case <-r.front.Done():
		return r.front.Err()
	}
}

// folder is where the demo lives.
type folder struct {
	path string
	made bool // by us, so ours to remove
}

func openFolder(dir string) (folder, error) {
	if dir == "" {
		dir, err := os.MkdirTemp("", "strongroom-demo-")
		if err != nil {
			return folder{}, fmt.Errorf("make a folder for the demo: %w", err)
		}
		return folder{dir, true}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return folder{}, fmt.Errorf("folder for the demo: %w", err)
	}
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		return folder{dir, true}, nil
	case !errors.Is(err, os.ErrExist):
		return folder{}, fmt.Errorf("folder for the demo: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return folder{}, fmt.Errorf("folder for the demo: %w", err)
	}
	if len(entries) > 0 {
		return folder{}, fmt.Errorf("folder %q: %w", dir, scratch.ErrOccupied)
	}
	return folder{dir, false}, nil
}

// leave removes what the demo wrote. A folder that was there before stays,
// empty as it was.
func (f folder) leave(keep bool) error {
	if keep {
		return nil
	}
	if f.made {
		return os.RemoveAll(f.path)
	}
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(f.path, e.Name())))
	}
	return errors.Join(errs...)
}
