package uninstall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
	"strongroom.example/installer/upgrade"
	"strongroom.example/systemd"
)

// installed is a machine with an appliance and some things of others.
func installed(t *testing.T) *host.Memory {
	t.Helper()
	m := host.NewMemory()
	put := func(p, text string) {
		for d := path.Dir(p); d != "/"; d = path.Dir(d) {
			if m.Files[d] == nil {
				m.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
			}
		}
		m.Files[p] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o644}, Size: int64(len(text))}, Data: []byte(text)}
	}
	for _, n := range systemd.Names() {
		put(path.Join(machine.UnitDir, n), "[Unit]\n")
		if !strings.Contains(n, "@.") {
			m.Units[n] = &host.Unit{Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled"}
		}
	}
	for p, text := range map[string]string{
		machine.UnitDir + "/vault.service.d/mine.conf":               "[Service]\n",
		machine.UnitDir + "/strongroom-kms.service.d/vault-uid.conf": "# Written by strongroom-installer: the only uid.\n",
		machine.UnitDir + "/nftables.service.d/strongroom.conf":      string(systemd.NftablesDropIn()),
		machine.UnitDir + "/strongroom-retired.service":              "[Unit]\n",
		machine.UnitDir + "/strongroom-mine.service":                 "the operator's, by a name like ours",
		machine.UnitDir + "/nginx.service":                           "[Unit]\n",
		machine.BinDir + "/strongroom":                               "program",
		machine.BinDir + "/other":                                    "program",
		machine.VaultProgram:                                         "program",
		machine.PluginDir + "/plugin-1":                              "plugin",
		machine.RaftDir + "/vault.db":                                "data",
		machine.EscrowDir + "/admin.age":                             "escrow",
		machine.Etc + "/appliance.toml":                              "domain",
		machine.Etc + "/epoch.json":                                  "{}",
		machine.VaultHCL:                                             "hcl",
		machine.TLSDir + "/ca.crt":                                   "cert",
		machine.MasterKeyFile:                                        "sealed",
		machine.AuditDir + "/audit-1.log":                            "log",
		machine.FrontData + "/root.crt":                              "cert",
		"/etc/fstab":                                                 "/dev/sda1 / ext4\n" + steps.SwapNote + "/swapfile none swap\n# comment\n",
		"/etc/nftables.conf":                                         "the operator's",
		"/etc/ssh/sshd_config.d/ours.conf":                           "listed",
		"/etc/ssh/sshd_config":                                       "not listed",
		machine.ManifestFile: `{"format":1,"files":[{"path":"/etc/systemd/system/strongroom-retired.service"},{"path":"/etc/ssh/sshd_config.d/ours.conf"},
			{"path":"/etc/strongroom/appliance.toml"},{"path":"/etc/strongroom/credentials/master-key"},{"path":"/var/lib/strongroom/escrow/admin.age"}]}`,
	} {
		put(p, text)
	}
	for _, f := range machine.SystemFiles() {
		put(f, "ours")
	}
	for i, a := range append(machine.Accounts(), machine.Account{Name: "alice", Comment: "Alice"}) {
		m.Users[a.Name] = host.User{Name: a.Name, UID: 900 + i, GID: 900 + i, Comment: a.Comment, Shell: "/usr/sbin/nologin"}
	}
	m.Commands["nft"] = func(c host.Command, _ []byte) (host.Output, error) {
		if slices.Contains(c.Args, "inet") {
			return host.Output{}, nil
		}
		return host.Output{}, &host.ExitError{Code: 1}
	}
	m.Commands["userdel"] = func(c host.Command, _ []byte) (host.Output, error) {
		delete(m.Users, c.Args[1])
		return host.Output{}, nil
	}
	return m
}

func remove(m *host.Memory, purge bool) (*Uninstall, *bytes.Buffer) {
	var out bytes.Buffer
	return &Uninstall{Host: m.Host(), Config: config.Default(), Purge: purge, Out: &out}, &out
}

// state is what is on the machine, for comparison.
func state(m *host.Memory) map[string]string {
	all := map[string]string{}
	for p, n := range m.Files {
		if n.Type == 0 {
			all[p] = string(n.Data)
		}
	}
	for n, u := range m.Units {
		all["unit "+n] = u.Active + " " + u.Enabled
	}
	for n := range m.Users {
		all["user "+n] = ""
	}
	return all
}

func check(t *testing.T, m *host.Memory, there, gone []string) {
	t.Helper()
	for _, p := range there {
		if m.Files[p] == nil {
			t.Errorf("%s is gone", p)
		}
	}
	for _, p := range gone {
		if m.Files[p] != nil {
			t.Errorf("%s is still there", p)
		}
	}
}

var (
	others = []string{machine.UnitDir + "/nginx.service", machine.UnitDir + "/strongroom-mine.service", machine.UnitDir + "/vault.service.d/mine.conf",
		machine.BinDir + "/other", "/etc/nftables.conf", "/etc/ssh/sshd_config"}
	ours = append([]string{machine.UnitDir + "/vault.service", machine.UnitDir + "/strongroom-retired.service", machine.UnitDir + "/strongroom-kms.service.d", machine.UnitDir + "/nftables.service.d",
		machine.BinDir + "/strongroom", machine.VaultProgram, machine.LibDir, machine.VaultHCL, machine.TLSDir, "/etc/ssh/sshd_config.d/ours.conf"}, machine.SystemFiles()...)
	kept = []string{machine.RaftDir + "/vault.db", machine.EscrowDir + "/admin.age", machine.Etc + "/appliance.toml", machine.Etc + "/epoch.json",
		machine.MasterKeyFile, machine.AuditDir + "/audit-1.log", machine.FrontData + "/root.crt"}
)

func TestKeepsData(t *testing.T) {
	m := installed(t)
	u, out := remove(m, false)
	if err := u.Plan(); err != nil {
		t.Fatal(err)
	}
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check(t, m, append(slices.Clone(others), kept...), ours)
	if got := string(m.Files["/etc/fstab"].Data); got != "/dev/sda1 / ext4\n/swapfile none swap\n# comment\n" {
		t.Errorf("fstab: %q", got)
	}
	for _, n := range systemd.Names() {
		if v := m.Units[n]; v != nil && (v.Active != "inactive" || v.Enabled != "disabled") {
			t.Errorf("%s is %s, %s", n, v.Active, v.Enabled)
		}
	}
	if len(m.Users) != len(machine.Users())+1 {
		t.Errorf("users: %v", slices.Sorted(maps.Keys(m.Users)))
	}
	if u, _ = remove(m, false); !errors.Is(u.Plan(), ErrNothing) {
		t.Error("there is something left to remove")
	}
	// The data can be purged later.
	u, _ = remove(m, true)
	if err := u.Plan(); err != nil {
		t.Error(err)
	}
}

func TestPurge(t *testing.T) {
	m := installed(t)
	u, out := remove(m, true)
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check(t, m, others, append(slices.Clone(ours), kept...))
	if got := slices.Sorted(maps.Keys(m.Users)); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("users: %v", got)
	}
	if u, _ = remove(m, true); !errors.Is(u.Plan(), ErrNothing) {
		t.Error("there is something left to purge")
	}
	if !strings.Contains(out.String(), "mine.conf is not the installer's") {
		t.Errorf("nothing is said of the operator's drop-in:\n%s", out)
	}
}

func TestLoginUserStays(t *testing.T) {
	m := installed(t)
	m.Users["vault"] = host.User{Name: "vault", UID: 1000, Shell: "/bin/bash"}
	u, _ := remove(m, true)
	if err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, there := m.Users["vault"]; !there {
		t.Error("a user who can log in was removed")
	}
}

// TestStoppedAnywhere fails each action once: the second run ends as an
// undisturbed one.
func TestStoppedAnywhere(t *testing.T) {
	for _, purge := range []bool{false, true} {
		t.Run(fmt.Sprintf("purge=%v", purge), func(t *testing.T) {
			whole := installed(t)
			u, _ := remove(whole, purge)
			if err := u.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			n := 1
			for ; ; n++ {
				m := installed(t)
				m.FailAt = n
				u, _ := remove(m, purge)
				if err := u.Run(t.Context()); err == nil && m.Actions < n {
					break
				}
				u, out := remove(m, purge)
				if err := u.Plan(); errors.Is(err, ErrNothing) && maps.Equal(state(m), state(whole)) {
					continue // the fault was met at the very end
				} else if err != nil {
					t.Fatalf("action %d: %v", n, err)
				}
				if err := u.Run(t.Context()); err != nil {
					t.Fatalf("action %d: %v\n%s", n, err, out)
				}
				if got, want := state(m), state(whole); !maps.Equal(got, want) {
					t.Fatalf("action %d: the machine is not as after an undisturbed run", n)
				}
			}
			if n < 30 {
				t.Errorf("only %d actions", n)
			}
		})
	}
}

func TestBackupsInside(t *testing.T) {
	for place, want := range map[string]bool{
		"/var/lib/strongroom/backups": true, "/var/lib/strongroom-backups": false, "/mnt/backups": false, "/var/lib/vault/": true,
	} {
		u, _ := remove(installed(t), true)
		u.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: place}}
		if got, err := u.Inside(); err != nil || (got != "") != want {
			t.Errorf("%s: inside = %q, %v", place, got, err)
		}
	}
}

// TestSnapshotsInside is about a purge that does not know where backups lie.
func TestSnapshotsInside(t *testing.T) {
	for _, c := range []struct {
		file string
		want bool
	}{
		{machine.StateDir + "/backups/7f/20261124T151500Z-1a2b3c4d.snap.age", true},
		{machine.VaultData + "/20261124T151500Z-1a2b3c4d.snap.age", true},
		{"/mnt/backups/7f/20261124T151500Z-1a2b3c4d.snap.age", false},
		{machine.StateDir + "/backups/7f/20261124T151500Z-1a2b3c4d.json", false},
		{upgrade.SealedDir + "/7f/20261124T151500Z-1a2b3c4d.snap.age", false},
	} {
		m := installed(t)
		for d := path.Dir(c.file); d != "/"; d = path.Dir(d) {
			m.Files[d] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}, Type: fs.ModeDir}}
		}
		m.Files[c.file] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o600}}}
		u, _ := remove(m, true)
		u.Unknown = true
		want := ""
		if c.want {
			want = c.file
		}
		if got, err := u.Inside(); err != nil || got != want {
			t.Errorf("%s: inside = %q, %v", c.file, got, err)
		}
	}
}

func TestStopsInOrder(t *testing.T) {
	names := []string{machine.UnitKMS, machine.UnitFirewall, machine.UnitVault, machine.UnitFront, machine.UnitKMSSocket, machine.UnitFrontHTTPS, machine.UnitSnapshotTimer}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	want := []string{machine.UnitSnapshotTimer, machine.UnitFrontHTTPS, machine.UnitFront, machine.UnitVault, machine.UnitKMSSocket, machine.UnitKMS, machine.UnitFirewall}
	if !slices.Equal(names, want) {
		t.Errorf("order: %v", names)
	}
}

func TestCancelled(t *testing.T) {
	m := installed(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u, _ := remove(m, true)
	before := state(m)
	if err := u.Run(ctx); !errors.Is(err, context.Canceled) || !maps.Equal(before, state(m)) {
		t.Errorf("%v, or something was removed", err)
	}
}

// A disk that is mounted where the data was is emptied and stays; the purge comes to an
// end, and a second one finds nothing.
func TestPurgeOfADisk(t *testing.T) {
	for _, at := range []string{machine.VaultData, machine.RaftDir, machine.StateDir, machine.AuditDir, machine.FrontData, machine.Etc} {
		t.Run(at, func(t *testing.T) {
			m := installed(t)
			m.Mounts = []string{at}
			m.Files["/proc/self/mountinfo"] = &host.Node{Data: []byte("36 35 8:1 / " + at + " rw - ext4 /dev/sdb rw\n")}
			m.Files[path.Join(at, "lost+found")] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
			u, out := remove(m, true)
			if err := u.Run(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			check(t, m, append(slices.Clone(others), at), append(slices.Clone(ours), kept...))
			if !strings.Contains(out.String(), "a disk is mounted there") {
				t.Errorf("nothing is said of the disk:\n%s", out)
			}
			if u, _ = remove(m, true); !errors.Is(u.Plan(), ErrNothing) {
				t.Error("there is something left to purge")
			}
		})
	}
}

// Users that were there before, by names like ours, and those who own what stays, stay.
func TestUsersThatStay(t *testing.T) {
	m := installed(t)
	before := m.Users[machine.UserVault]
	before.Comment = ""
	m.Users[machine.UserVault] = before
	m.Files["/mnt"] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	m.Files["/mnt/backup"] = &host.Node{Info: host.Info{Type: fs.ModeDir, Attr: host.Attr{GID: m.Users[machine.UserSnapshot].GID}}}
	u, out := remove(m, true)
	u.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt/backup"}}
	if err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(m.Users)); !slices.Equal(got, []string{"alice", machine.UserSnapshot, machine.UserVault}) {
		t.Errorf("users: %v\n%s", got, out)
	}
	if !strings.Contains(out.String(), `user "strongroom-snapshot" owns /mnt/backup, and stays`) {
		t.Errorf("nothing is said of whose the backups are:\n%s", out)
	}
}

// A client that connects while the front stops would start it again by the other socket.
func TestFrontStopsWithItsSockets(t *testing.T) {
	m := installed(t)
	together := false
	h := m.Host()
	h.Services = connecting{m, &together}
	u, out := remove(m, false)
	u.Host = h
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !together {
		t.Error("the front and its sockets were not stopped together")
	}
}

// connecting is systemd where a client connects all the time.
type connecting struct {
	*host.Memory
	together *bool
}

func (c connecting) Stop(ctx context.Context, name string) error {
	if name == machine.UnitFrontHTTPS || name == machine.UnitFrontHTTP || name == machine.UnitFront {
		return fmt.Errorf("stop %s: systemd says %q", name, "canceled")
	}
	return c.Memory.Stop(ctx, name)
}

func (c connecting) StopTogether(ctx context.Context, names ...string) error {
	*c.together = *c.together || slices.Contains(names, machine.UnitFront) && slices.Contains(names, machine.UnitFrontHTTPS) && slices.Contains(names, machine.UnitFrontHTTP)
	return c.Memory.StopTogether(ctx, names...)
}

// A file of ours that somebody has changed is his, too.
func TestChangedSettingsAreKept(t *testing.T) {
	m := installed(t)
	b, err := json.Marshal(steps.Manifest{Format: machine.ManifestFormat, Files: []steps.ManifestFile{
		{Path: machine.SysctlFile, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("as it was")))},
		{Path: machine.LimitsFile, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("ours")))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m.Files[machine.ManifestFile].Data = b
	u, out := remove(m, false)
	if err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	aside := ""
	for p := range m.Files {
		if strings.HasPrefix(p, machine.SysctlFile+machine.Aside) {
			aside = string(m.Files[p].Data)
		}
	}
	if aside != "ours" || m.Files[machine.SysctlFile] != nil || m.Files[machine.LimitsFile] != nil || !strings.Contains(out.String(), machine.SysctlFile+" was changed") {
		t.Errorf("kept: %q\n%s", aside, out)
	}
}
