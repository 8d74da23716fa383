package steps

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/serve/dnscheck"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

func openAge(t *testing.T, sealed []byte, id age.Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(sealed)), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPreflightRefuses(t *testing.T) {
	file := func(p, text string) func(*vps, *Env) {
		return func(v *vps, _ *Env) { v.Files[p] = &host.Node{Data: []byte(text)} }
	}
	for name, c := range map[string]struct {
		change func(*vps, *Env)
		want   string
	}{
		"old Debian":    {file("/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n"), `operating system "debian" "11"`},
		"old Ubuntu":    {file("/etc/os-release", "ID=ubuntu\nVERSION_ID=\"22.04\"\n"), `operating system "ubuntu" "22.04"`},
		"other system":  {file("/etc/os-release", "ID=fedora\nVERSION_ID=43\n"), `operating system "fedora" "43"`},
		"no os-release": {func(v *vps, _ *Env) { delete(v.Files, "/etc/os-release") }, "operating system: "},
		"a vendor's os-release": {func(v *vps, _ *Env) {
			delete(v.Files, "/etc/os-release")
			v.Files["/usr/lib/os-release"] = &host.Node{Data: []byte("ID=debian\nVERSION_ID=\"11\"\n")}
		}, `operating system "debian" "11"`},
		"little memory": {file("/proc/meminfo", "MemTotal:  1000000 kB\n"), "memory: 976 MiB"},
		"odd memory":    {file("/proc/meminfo", "nothing\n"), "memory: /proc/meminfo"},
		"small disk":    {func(v *vps, _ *Env) { v.Total = 10 << 30 }, "disk: 10 GiB"},
		"full disk":     {func(v *vps, _ *Env) { v.Free = 1 << 30 }, "disk: 1024 MiB free"},
		"old systemd":   {func(v *vps, _ *Env) { v.Commands["systemctl"] = answer("systemd 247 (247.3)\n") }, "systemd: version 247"},
		"no systemd":    {func(v *vps, _ *Env) { delete(v.Commands, "systemctl") }, "systemd: "},
		"no recipient":  {func(_ *vps, e *Env) { e.Recipients = nil }, "escrow: no key to encrypt to"},
		"port taken":    {func(_ *vps, e *Env) { e.Network = network{taken: []int{443}} }, "port 443/tcp is taken"},
		"clock unset":   {func(v *vps, _ *Env) { v.Clock = time.Unix(0, 0) }, "clock: it says 1970; set it"},
		"vault.d":       {file("/etc/vault.d", ""), `another Vault: "/etc/vault.d" is there`},
		"foreign unit":  {file(machine.UnitDir+"/vault.service", ""), "another Vault"},
		"foreign data": {func(v *vps, _ *Env) {
			v.Files[machine.VaultData] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
			v.Files[machine.VaultData+"/vault.db"] = &host.Node{}
		}, `another Vault: "/var/lib/vault" is not empty`},
		"CAA": {func(_ *vps, e *Env) {
			e.Config.TLS.Mode = config.TLSACME
			e.Network = network{points: []netip.Addr{netip.MustParseAddr("203.0.113.5")}, caa: dnscheck.ErrCAA}
		}, "DNS: CAA records do not allow"},
		"no ACME root": {func(_ *vps, e *Env) {
			e.Config.TLS.Mode, e.Config.TLS.ACME = config.TLSACME, config.ACME{Directory: "https://ca.lan/dir", CAFile: "/root/ca.pem"}
		}, "certificate: tls.acme.ca_file: "},
		"no authority of a bucket": {func(v *vps, e *Env) {
			e.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt"}, {Type: config.BackupS3, CAFile: "/etc/ssl/s3.crt"}}
		}, "backup.to[1].ca_file: "},
		"another file for a bucket's": {func(v *vps, e *Env) {
			v.Files["/etc/ssl/s3.crt"] = &host.Node{Data: []byte("no PEM")}
			e.Config.Backup.To = []config.BackupTo{{Type: config.BackupS3, CAFile: "/etc/ssl/s3.crt"}}
		}, `backup.to[0].ca_file: "/etc/ssl/s3.crt" holds no certificate`},
		"no authority of the mail server": {func(v *vps, e *Env) { e.Config.Alert.Mail.CAFile = "/etc/ssl/mail.crt" }, "alert.mail.ca_file: "},
		"odd ACME root": {func(v *vps, e *Env) {
			v.Files["/root/ca.pem"] = &host.Node{Data: []byte("nothing")}
			e.Config.TLS.Mode, e.Config.TLS.ACME = config.TLSACME, config.ACME{Directory: "https://ca.lan/dir", CAFile: "/root/ca.pem"}
		}, "holds no certificate in PEM"},
		"no certificate":      {ownCertificate("", 0), "certificate: tls.cert_file: "},
		"another's name":      {ownCertificate("other.example.com", time.Hour), "certificate: \"/root/tls.crt\": x509: certificate is valid for other.example.com"},
		"expired certificate": {ownCertificate("vault.example.com", -time.Hour), "certificate: \"/root/tls.crt\" ended on"},
		"another's key": {func(v *vps, e *Env) {
			ownCertificate("vault.example.com", time.Hour)(v, e)
			key := v.Files["/root/tls.key"].Data
			ownCertificate("vault.example.com", time.Hour)(v, e)
			v.Files["/root/tls.key"].Data = key
		}, "private key does not match public key"},
		"elsewhere": {func(_ *vps, e *Env) {
			e.Config.TLS.Mode = config.TLSACME
			e.Network = network{points: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
		}, "DNS: vault.example.com points to 198.51.100.1, which is not an address of this machine (203.0.113.5)"},
		"no DNS": {func(_ *vps, e *Env) {
			e.Config.TLS.Mode = config.TLSACME
			e.Network = network{err: errors.New("no such host")}
		}, "DNS: no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			e := v.env()
			c.change(v, e)
			before := v.state()
			var out bytes.Buffer
			_, err := v.engine(e, &out).Install(t.Context())
			var ee *fault.Error
			if !errors.As(err, &ee) || ee.Code != fault.Operator || ee.Hint == "" {
				t.Fatalf("error = %v", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
			for k, s := range v.state() {
				if before[k] != s {
					t.Errorf("%s was changed", k)
				}
			}
		})
	}
}

// ownCertificate gives the machine a certificate of the operator's for name,
// which ends after life, or with name "" none.
func ownCertificate(name string, life time.Duration) func(*vps, *Env) {
	return func(v *vps, e *Env) {
		e.Config.TLS = config.TLS{Mode: config.TLSFiles, CertFile: "/root/tls.crt", KeyFile: "/root/tls.key"}
		if name == "" {
			return
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
		if err != nil {
			panic(err)
		}
		now := v.Host().Now()
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(life)}
		cert, err := x509.CreateCertificate(cryptorand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			panic(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			panic(err)
		}
		v.Files["/root/tls.crt"] = &host.Node{Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})}
		v.Files["/root/tls.key"] = &host.Node{Data: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	}
}

func TestPreflightOfOurMachine(t *testing.T) {
	for name, c := range map[string]struct {
		total, free uint64
		ours        bool
		want        string
	}{
		"ours, little room":     {19 << 30, 1 << 30, true, ""},
		"ours, smaller disk":    {10 << 30, 1 << 30, true, ""},
		"ours, hardly any room": {19 << 30, 511 << 20, true, "511 MiB free on the file system of /var/lib, at least 512 MiB"},
		"new, little room":      {19 << 30, 1 << 30, false, "1024 MiB free on the file system of /var/lib, at least 4096 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			v.Total, v.Free = c.total, c.free
			if c.ours {
				v.Files[machine.UnitDir+"/"+machine.UnitKMS] = &host.Node{}
			}
			_, err := preflight{v.env()}.Check(t.Context())
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}

func TestPreflightReportsAll(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	v.Total, e.Recipients = 1<<30, nil
	e.Network = network{taken: []int{80, 443, 8200, 8201, 9468}}
	var out bytes.Buffer
	_, err := v.engine(e, &out).Install(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"disk: ", "escrow: ", "port 80/tcp", "port 443/tcp", "port 8200/tcp", "port 8201/tcp", "port 9468/tcp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

func TestOddMachines(t *testing.T) {
	t.Run("no clock service", func(t *testing.T) {
		v := newVPS(t)
		delete(v.Units, "systemd-timesyncd.service")
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "keeps the clock") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("another clock service", func(t *testing.T) {
		v := newVPS(t)
		v.Units["chrony.service"] = &host.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v.Units["systemd-timesyncd.service"].Enabled == "enabled" {
			t.Error("two services for one clock")
		}
	})
	t.Run("apport", func(t *testing.T) {
		v := newVPS(t)
		u := &host.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}
		v.Units["apport.service"] = u
		v.Files["/proc/sys/kernel"] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
		v.Files["/proc/sys/kernel/core_pattern"] = &host.Node{Data: []byte("|/bin/false\n")}
		version := v.Commands["systemctl"]
		v.Commands["systemctl"] = func(c host.Command, in []byte) (host.Output, error) {
			if c.String() == "systemctl mask --now apport.service" {
				u.Load, u.Active, u.Enabled = "masked", "inactive", "masked"
				v.Files["/proc/sys/kernel/core_pattern"].Data = []byte("core\n") // as its stop does
				return host.Output{}, nil
			}
			return version(c, in)
		}
		diff, err := system{v.env()}.Check(t.Context())
		if err != nil || !slices.ContainsFunc(diff, func(c engine.Change) bool { return c.What == "apport.service" && c.From == "active" }) {
			t.Errorf("diff = %v, %v", diff, err)
		}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if u.Load != "masked" {
			t.Errorf("unit %+v", *u)
		}
		if got := string(v.Files["/proc/sys/kernel/core_pattern"].Data); got != "|/bin/false\n" {
			t.Errorf("core_pattern %q", got)
		}
		if diff, err := (system{v.env()}).Check(t.Context()); err != nil || len(diff) > 0 {
			t.Errorf("diff = %v, %v", diff, err)
		}
	})
	t.Run("vault is a person", func(t *testing.T) {
		v := newVPS(t)
		v.Users[machine.UserVault] = host.User{Name: machine.UserVault, UID: 1000, GID: 1000, Shell: "/bin/bash"}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "can log in") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("masked unit", func(t *testing.T) {
		v := newVPS(t)
		v.Units["strongroom-kms.service"] = &host.Unit{Load: "masked"}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "is masked") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("kernel settings of a container", func(t *testing.T) {
		// /proc/sys can be read there and not written: what it says stays as it is.
		for mounts, asked := range map[string]bool{
			"proc /proc proc rw 0 0\nproc /proc/sys proc ro,nosuid 0 0\n":                               false,
			"/dev/sda1 / ext4 ro 0 0\nproc /proc proc rw 0 0\nproc /proc/sysrq-trigger proc ro 0 0\n":   true,
			"proc /proc proc ro 0 0\nproc /proc/sys proc rw,nosuid 0 0\n":                               true,
			"an odd line\nproc /proc/sys proc ro,nosuid 0 0\nproc /proc/sys/fs/suid_dumpable proc rw 0": true,
		} {
			v := newVPS(t)
			v.Files["/proc/self"] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
			v.Files["/proc/self/mounts"] = &host.Node{Data: []byte(mounts)}
			diff, err := system{v.env()}.sysctl("fs.suid_dumpable", "0")
			if err != nil || len(diff) > 0 != asked {
				t.Errorf("mounts %q: %v, %v; asked for: want %v", mounts, diff, err, asked)
			}
		}
	})
	t.Run("a folder where a file belongs", func(t *testing.T) {
		v := newVPS(t)
		v.Files[machine.SysctlFile] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
		var out bytes.Buffer
		_, err := v.engine(v.env(), &out).Install(t.Context())
		var e *fault.Error
		if !errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(e.Hint, "move it away") ||
			!strings.Contains(err.Error(), `"`+machine.SysctlFile+`" is a folder where a file belongs`) {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("a link where a file belongs", func(t *testing.T) {
		v := newVPS(t)
		v.Files["/root/kept"] = &host.Node{Data: []byte("somebody's")}
		v.Files[machine.SysctlFile] = &host.Node{Info: host.Info{Type: fs.ModeSymlink, Target: "/root/kept"}}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := v.Files[machine.SysctlFile]; n.Type != 0 || !bytes.Contains(n.Data, []byte("fs.suid_dumpable = 0")) {
			t.Errorf("the file is %+v", n)
		}
		if got := string(v.Files["/root/kept"].Data); got != "somebody's" {
			t.Errorf("what the link led to holds %q now", got)
		}
	})
	t.Run("a file where a folder belongs", func(t *testing.T) {
		v := newVPS(t)
		v.Files["/etc/strongroom"] = &host.Node{}
		var out bytes.Buffer
		if _, err := v.engine(v.env(), &out).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "is not a folder") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestVaultProgramRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		old  bool
		want string
		code int
	}{
		"old":          {"Vault v1.21.1 (abc)\n", false, "is Vault 1.21.1, below", fault.Operator},
		"old allowed":  {"Vault v1.21.1, built 2025-11-24\n", true, "", 0},
		"not Vault":    {"nginx version 1\n", false, "is no Vault", fault.Usage},
		"no version":   {"Vault vX.Y\n", false, "is not a version", fault.Usage},
		"enterprise":   {"Vault v2.2.2+ent (abc)\n", false, "", 0},
		"OpenBao":      {"OpenBao v2.7.2 (abc)\n", false, "neither reads the other's storage", fault.Usage},
		"not runnable": {"", false, "doesn't tell its version", fault.Usage},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			e := v.env()
			e.Config.Vault.AllowOld = c.old
			v.Commands["vault"] = answer(c.says)
			if c.says == "" {
				delete(v.Commands, "vault")
			}
			diff, err := vaultProgram{e}.Check(t.Context())
			if c.want == "" {
				if err != nil || len(diff) != 1 {
					t.Errorf("diff = %v, %v", diff, err)
				}
				return
			}
			var ee *fault.Error
			if !errors.As(err, &ee) || ee.Code != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want %q with code %d", err, c.want, c.code)
			}
		})
	}
}

const ed25519Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0w8XugjbQZEMN3mzIKSys8rzBev7xZuaWwAfLOpTK6 me@host"

func TestRecipients(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		configured []string
		file       string
		count      int
		notes      int
		fails      bool
	}{
		"authorized keys": {file: "# mine\n\n" + ed25519Key + "\nrestrict,command=\"echo \\\"a b\\\"\" " + ed25519Key + "\n", count: 2},
		"other kinds":     {file: "ecdsa-sha2-nistp256 AAAA x\nsk-ssh-ed25519@openssh.com AAAA x\n" + ed25519Key + "\n", count: 1, notes: 2},
		"broken line":     {file: "ssh-ed25519 !!!\n", notes: 1},
		"no file":         {notes: 1},
		"configured":      {configured: []string{id.Recipient().String(), ed25519Key}, count: 2},
		"bad configured":  {configured: []string{"age1qqqq"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := host.NewMemory()
			m.Users["root"] = host.User{Name: "root", Home: "/root"}
			if c.file != "" {
				m.Files["/root/.ssh/authorized_keys"] = &host.Node{Data: []byte(c.file)}
			}
			to, notes, err := Recipients(m.Host(), c.configured, "root")
			if (err != nil) != c.fails || len(to) != c.count || len(notes) != c.notes {
				t.Errorf("%d recipients, notes %q, %v", len(to), notes, err)
			}
			for _, n := range notes {
				if strings.Contains(n, "AAAA") {
					t.Errorf("a whole key is quoted: %s", n)
				}
			}
		})
	}
	if _, _, err := Recipients(host.NewMemory().Host(), nil, "nobody-here"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("error = %v", err)
	}
}

func TestSharesAreSpread(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var ids []*age.X25519Identity
	e.Recipients = nil
	for range 3 {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		e.Recipients = append(e.Recipients, id.Recipient())
	}
	v.Files[machine.StateDir], v.Files[machine.EscrowDir] = &host.Node{Info: host.Info{Type: fs.ModeDir}}, &host.Node{Info: host.Info{Type: fs.ModeDir}}
	if err := (initialise{e}).escrowShares([]string{"s1", "s2", "s3", "s4", "s5"}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"s1\ns4\n", "s2\ns5\n", "s3\n"} {
		sealed := v.Files[machine.EscrowDir+"/recovery-keys-"+string(rune('1'+i))+".age"].Data
		if got := string(openAge(t, sealed, ids[i])); got != want {
			t.Errorf("hand %d holds %q, want %q", i+1, got, want)
		}
		other := ids[(i+1)%3]
		if _, err := age.Decrypt(armor.NewReader(bytes.NewReader(sealed)), other); err == nil {
			t.Errorf("hand %d is open to another recipient", i+1)
		}
	}
}

func TestPassword(t *testing.T) {
	e := newVPS(t).env()
	var seen []string
	for range 3 {
		p, err := e.password(130)
		if err != nil {
			t.Fatal(err)
		}
		if len(p) != 30 || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz234567-") != "" || slices.Contains(seen, p) {
			t.Errorf("password %q", p)
		}
		seen = append(seen, p)
	}
	e.Rand = strings.NewReader("short")
	if _, err := e.password(130); err == nil {
		t.Error("no error without randomness")
	}
}

func TestLinkCertificatesAreMended(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := linkCertificates{e}
	if why, err := s.fault(); err != nil || why != "" {
		t.Fatalf("%q, %v", why, err)
	}
	for name, c := range map[string]struct {
		change func()
		want   string
	}{
		"missing":     {func() { delete(v.Files, machine.TLSDir+"/front.key") }, "front.key is missing"},
		"readable":    {func() { v.Files[machine.TLSDir+"/server.key"].Mode = 0o644 }, "server.key can be read by others"},
		"other pair":  {func() { v.Files[machine.TLSDir+"/server.key"].Data = v.Files[machine.TLSDir+"/front.key"].Data }, "server: certificate and key don't fit"},
		"swapped":     {func() { swap(v, "server", "front") }, "will not do for another year"},
		"no CA":       {func() { v.Files[machine.TLSDir+"/ca.crt"].Data = []byte("x") }, "ca.crt is no certificate"},
		"near expiry": {func() { v.Clock = v.Clock.AddDate(9, 1, 0) }, "will not do for another year"},
	} {
		t.Run(name, func(t *testing.T) {
			c.change()
			why, err := s.fault()
			if err != nil || !strings.Contains(why, c.want) {
				t.Errorf("%q, %v, want %q", why, err, c.want)
			}
			diff, err := s.Check(t.Context())
			if err != nil || len(diff) != 1 {
				t.Fatalf("diff = %v, %v", diff, err)
			}
			if err := diff[0].Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			if why, err := s.fault(); err != nil || why != "" {
				t.Errorf("afterwards: %q, %v", why, err)
			}
		})
	}
}

func swap(v *vps, a, b string) {
	for _, ext := range []string{".crt", ".key"} {
		x, y := v.Files[machine.TLSDir+"/"+a+ext], v.Files[machine.TLSDir+"/"+b+ext]
		x.Data, y.Data = y.Data, x.Data
	}
}

// Vault would not start at an address that is another machine's.
func TestListensAtItsOwnAddress(t *testing.T) {
	for at, refused := range map[string]bool{"127.0.0.1:8201": false, "[::1]:8201": false, "203.0.113.5:8201": false, "203.0.113.6:8201": true, "[2001:db8::1]:8201": true} {
		e := newVPS(t).env()
		e.Config.Node.ClusterListen = at
		if err := (preflight{e}).listen(t.Context()); (err != nil) != refused || err != nil && !strings.Contains(err.Error(), "node.cluster_listen") {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// A bucket that refuses us is told before anything is done, with all else that stands in
// the way; one that was tried before keeps nobody from mending the machine.
func TestBucketIsAskedFirst(t *testing.T) {
	v := newVPS(t)
	v.Files["/proc/meminfo"].Data = []byte("MemTotal: 100 kB\n")
	v.Files["/root/s3"] = &host.Node{Data: []byte("the key pair")}
	for _, d := range []string{machine.Etc, machine.StateDir} {
		v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	e := v.env()
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt"}, {Type: config.BackupS3, Bucket: "b", Credentials: "/root/s3"}}
	e.Given = SealSecrets(&e.Config, "")
	asked := 0
	e.Probe = func(_ context.Context, to config.BackupTo, read func(string) ([]byte, error)) error {
		asked++
		if pair, err := read(to.Credentials); err != nil || string(pair) != "the key pair" {
			t.Errorf("it is asked with %q, %v", pair, err)
		}
		return errors.New("access denied")
	}
	_, err := preflight{e}.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "backup.to[1]: access denied") || !strings.Contains(err.Error(), "memory: ") || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	sum, err := e.backupSum()
	if err != nil {
		t.Fatal(err)
	}
	v.Files[machine.BackupTried] = &host.Node{Data: []byte(sum + "\n")}
	if err := (preflight{e}).buckets(t.Context()); err != nil || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}
