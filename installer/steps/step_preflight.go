package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/systemd"
)

// preflight asks whether this machine can become an appliance, and reports
// everything that stands in the way at once. It changes nothing.
type preflight struct{ *Env }

func (preflight) ID() string    { return "preflight" }
func (preflight) Title() string { return "preflight" }

// What the machine must have. A machine sold with 2 GB shows somewhat less, as
// does a disk of 20 GB.
const (
	minMemory   = 1800 << 20 // bytes
	minDisk     = 18 << 30   // bytes, in all; of a machine that is not ours yet
	minFree     = 4 << 30    // bytes; of a machine that is not ours yet
	minFreeOurs = 512 << 20  // bytes; what a repair writes
	minSystemd  = 252        // LoadCredentialEncrypted= and what the units use
)

func (s preflight) Check(ctx context.Context) (engine.Diff, error) {
	ours, err := s.installed()
	if err != nil {
		return nil, err
	}
	checks := []func(context.Context) error{s.payload, s.server, s.immutable, s.listen, s.users, s.nft, s.system, s.memory, s.disk(ours), s.serviceManager, s.sealable, s.recipients, s.certificate, s.authorities, s.buckets}
	if !ours {
		// What a running appliance occupies itself is asked only of a machine
		// that has none yet.
		checks = append(checks, s.sshd, s.ports, s.otherVault, s.clock, s.dns)
	}
	var errs []error
	for _, check := range checks {
		errs = append(errs, check(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, operator("remove each cause, then run the same command again", "this machine is not ready:\n%w", err)
	}
	return nil, nil
}

// installed says whether units of ours are there, from a run before this one.
func (s preflight) installed() (bool, error) {
	return s.exists(machine.UnitDir + "/" + machine.UnitKMS)
}

func (s preflight) system(context.Context) error {
	var errs []error
	if arch := runtime.GOARCH; arch != "amd64" && arch != "arm64" {
		errs = append(errs, fmt.Errorf("architecture %q is none of amd64, arm64", arch))
	}
	b, err := s.Host.ReadFile("/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) { // os-release(5)
		b, err = s.Host.ReadFile("/usr/lib/os-release")
	}
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("operating system: %w", err))...)
	}
	v := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[key] = strings.Trim(value, `"'`)
		}
	}
	major, _, _ := strings.Cut(v["VERSION_ID"], ".")
	n, _ := strconv.Atoi(major) // 0 for testing and sid, which have none
	switch {
	case v["ID"] == "debian" && n >= 12, v["ID"] == "ubuntu" && n >= 24:
	case v["ID"] == "debian" && n == 0:
	default:
		errs = append(errs, fmt.Errorf("operating system %q %q is neither Debian 12 or newer nor Ubuntu 24.04 or newer", v["ID"], v["VERSION_ID"]))
	}
	return errors.Join(errs...)
}

// payload wants the programs to be of the installer's own version: a build that was cut
// short carries others, and that must not show when half of them are in place.
func (s preflight) payload(context.Context) error {
	was, err := s.Payload.Version()
	if err == nil && was != "" && was != s.Version {
		err = fmt.Errorf("this installer is version %s and carries the programs of %s: build it with make build", s.Version, was)
	}
	for _, name := range []string{machine.ProgramName, machine.PluginName} {
		if _, missing := s.Payload.Program(name); missing != nil {
			err = errors.Join(err, fmt.Errorf("%w: build it with make build", missing))
		}
	}
	return err
}

// users refuses what the step for them would find, too.
func (s preflight) users(context.Context) error { return accounts(s).foreign() }

// bucketPatience bounds the question to a bucket, which else may try for minutes.
const bucketPatience = 15 * time.Second

// buckets asks those that [backup] has changed to name whether they take us, all at once.
// What has been proven is the jobs' affair: a bucket that is away keeps nobody from mending
// the machine.
func (s preflight) buckets(ctx context.Context) error {
	tried, err := s.backupTried()
	if err != nil || tried || s.Probe == nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bucketPatience, fmt.Errorf("no answer within %v", bucketPatience))
	defer cancel()
	faults := make([]error, len(s.Config.Backup.To))
	var all sync.WaitGroup
	for i, to := range s.Config.Backup.To {
		if to.Type != config.BackupS3 {
			continue
		}
		pair, err := s.keyPair(ctx, to.Credentials)
		if err != nil {
			continue // which the step for it tells, with what to do
		}
		all.Go(func() {
			err := s.Probe(ctx, to, func(string) ([]byte, error) { return slices.Clone(pair), nil })
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			if err != nil {
				faults[i] = fmt.Errorf("backup.to[%d]: %w", i, err)
			}
		})
	}
	all.Wait()
	return errors.Join(faults...)
}

// keyPair is what the operator gives, or what is sealed here.
func (s preflight) keyPair(ctx context.Context, name string) ([]byte, error) {
	if file, ok := s.Given[name]; ok {
		b, err := s.Host.ReadFile(file)
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return s.openCredential(ctx, name, machine.CredentialFile(name))
}

// sshd wants to be reached through the rules, before anything is done.
func (s preflight) sshd(context.Context) error {
	if !s.Config.Firewall.Manage || s.Reachable == nil {
		return nil
	}
	if err := s.Reachable(s.Config.Firewall); err != nil {
		return fmt.Errorf("firewall: %w: correct [firewall] in the configuration, or say --ssh-port or --ssh-from", err)
	}
	return nil
}

// nft wants the program that the firewall's rules are loaded with.
func (s preflight) nft(ctx context.Context) error {
	if !s.Config.Firewall.Manage {
		return nil
	}
	_, err := s.Host.Run(ctx, host.Command{Args: []string{"nft", "--version"}})
	if errors.Is(err, host.ErrNotFound) {
		return errors.New("firewall: nft is not here: apt-get install nftables, or say --no-firewall")
	}
	return err
}

func (s preflight) memory(context.Context) error {
	b, err := s.Host.ReadFile("/proc/meminfo")
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	m := regexp.MustCompile(`(?m)^MemTotal:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return errors.New("memory: /proc/meminfo doesn't tell MemTotal")
	}
	kb, err := strconv.ParseUint(string(m[1]), 10, 53)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if kb<<10 < minMemory {
		return fmt.Errorf("memory: %d MiB, at least 2 GB are needed", kb>>10)
	}
	return nil
}

// disk asks of a machine that is ours only for what a run needs: one whose disk
// fills up wants its repairs and upgrades all the more.
func (s preflight) disk(ours bool) func(context.Context) error {
	wantTotal, wantFree := uint64(minDisk), uint64(minFree)
	if ours {
		wantTotal, wantFree = 0, minFreeOurs
	}
	return func(context.Context) error {
		total, free, err := s.Host.Space("/var/lib")
		if err != nil {
			return fmt.Errorf("disk: %w", err)
		}
		if total < wantTotal {
			return fmt.Errorf("disk: %d GiB, at least 20 GB are needed", total>>30)
		}
		if free < wantFree {
			return fmt.Errorf("disk: %d MiB free on the file system of /var/lib, at least %d MiB are needed", free>>20, wantFree>>20)
		}
		return nil
	}
}

var systemdVersion = regexp.MustCompile(`^systemd (\d+)`)

func (s preflight) serviceManager(ctx context.Context) error {
	out, err := s.Host.Run(ctx, host.Command{Args: []string{"systemctl", "--version"}})
	if err != nil {
		return fmt.Errorf("systemd: %w", err)
	}
	m := systemdVersion.FindSubmatch(out.Stdout)
	if m == nil {
		return fmt.Errorf("systemd: %.40q tells no version", out.Stdout)
	}
	if n, err := strconv.Atoi(string(m[1])); err != nil || n < minSystemd {
		return fmt.Errorf("systemd: version %s, at least %d is needed", m[1], minSystemd)
	}
	return nil
}

// sealable wants a TPM where the configuration does, and one that works where it
// is to be used. Nothing is sealed by that.
func (s preflight) sealable(ctx context.Context) error {
	_, err := s.howSealed(ctx)
	var f *fault.Error
	if errors.As(err, &f) {
		return fmt.Errorf("%w: %s", err, f.Hint)
	}
	return err
}

// recipients wants somebody to seal for, unless all that is sealed for people has
// been: the doctor's login is made after the recovery keys.
func (s preflight) recipients(ctx context.Context) error {
	if len(s.Recipients) > 0 {
		return nil
	}
	for _, p := range []string{machine.MasterKeyFile, machine.DoctorSecretFile} {
		there, err := s.exists(p)
		if err != nil {
			return err
		}
		if !there {
			return errNoRecipient
		}
	}
	left, err := masterKey(s).Check(ctx)
	if err == nil && len(left) > 0 {
		err = errNoRecipient
	}
	return err
}

var errNoRecipient = errors.New("escrow: no key to encrypt to: authorized_keys has no ssh-ed25519 or ssh-rsa key, and escrow.recipients names none")

func (s preflight) ports(context.Context) error {
	var errs []error
	for _, p := range append(systemd.Ports(), systemd.Port{Network: "tcp", Number: machine.VaultPort}, systemd.Port{Network: "tcp", Number: machine.ClusterPort}) {
		taken, err := s.Network.Taken(p.Network, p.Number)
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d/%s: %w", p.Number, p.Network, err))
		} else if taken {
			errs = append(errs, fmt.Errorf("port %d/%s is taken; `ss -lnp` shows by whom", p.Number, p.Network))
		}
	}
	return errors.Join(errs...)
}

// otherVault refuses a machine with a Vault that is not ours: its data and its
// unit would be overwritten.
func (s preflight) otherVault(context.Context) error {
	var errs []error
	for _, p := range []string{"/etc/vault.d", "/opt/vault", machine.UnitDir + "/" + machine.UnitVault, "/usr/lib/systemd/system/" + machine.UnitVault, "/lib/systemd/system/" + machine.UnitVault} {
		there, err := s.exists(p)
		if err != nil {
			return err
		}
		if there {
			errs = append(errs, fmt.Errorf("another Vault: %q is there", p))
		}
	}
	names, err := s.Host.ReadDir(machine.VaultData)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// An uninstallation that kept the data has left the key that opens it.
	kept, err := s.exists(machine.MasterKeyFile)
	if err != nil {
		return err
	}
	if len(withoutLost(names)) > 0 && !kept {
		errs = append(errs, fmt.Errorf("another Vault: %q is not empty", machine.VaultData))
	}
	return errors.Join(errs...)
}

// withoutLost leaves out what the file system itself puts into the top of a new disk.
func withoutLost(names []string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return n == "lost+found" })
}

func (s preflight) clock(ctx context.Context) error {
	// A clock before the release of what is installed is surely wrong, and
	// every certificate would fail.
	if y := s.Host.Now().Year(); y < 2026 {
		return fmt.Errorf("clock: it says %d; set it, or start time synchronisation", y)
	}
	return nil
}

func (s preflight) dns(ctx context.Context) error {
	if s.SkipDNS || s.Config.TLS.Mode != config.TLSACME {
		return nil
	}
	domain := s.Config.Domain
	there, err := s.Network.Lookup(ctx, domain)
	if err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	here, err := s.Network.Local()
	if err != nil {
		return fmt.Errorf("DNS: %w", err)
	}
	for _, a := range there {
		if !slices.Contains(here, a) {
			return fmt.Errorf("DNS: %s points to %s, which is not an address of this machine (%s); correct it, or say --skip-dns-check where a translation of addresses stands before the machine",
				domain, a, joinAddrs(here))
		}
	}
	return nil
}

// listen wants the address that Vault is to listen at to be this machine's: with another
// one it would not start.
func (s preflight) listen(context.Context) error {
	at, err := netip.ParseAddrPort(s.Config.Node.ClusterListen)
	if err != nil || at.Addr().IsLoopback() {
		return nil // what is none the configuration's check refuses
	}
	here, err := s.Network.Local()
	if err != nil {
		return err
	}
	if !slices.Contains(here, at.Addr().Unmap()) {
		return fmt.Errorf("node.cluster_listen: %s is no address of this machine (%s)", at.Addr(), joinAddrs(here))
	}
	return nil
}

func joinAddrs(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			s = append(s, a.String())
		}
	}
	return strings.Join(s, ", ")
}
