package cli

import (
	"io/fs"
	"slices"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// TestRecipientsStay is about two administrators: who runs the installer second
// is not the one that the escrow is for.
func TestRecipientsStay(t *testing.T) {
	const (
		ann = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0w8XugjbQZEMN3mzIKSys8rzBev7xZuaWwAfLOpTK6 ann \"x\""
		bob = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPFSrj7WwHSZhuJP3nygfuBkisEaHQOnP0ivfQaD0Ncj bob"
	)
	m := host.NewMemory()
	for _, d := range []string{"/etc", "/etc/strongroom", "/home", "/home/ann", "/home/bob", "/home/ann/.ssh", "/home/bob/.ssh"} {
		m.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	for name, key := range map[string]string{"ann": ann, "bob": bob} {
		m.Users[name] = host.User{Name: name, Home: "/home/" + name}
		m.Files["/home/"+name+"/.ssh/authorized_keys"] = &host.Node{Data: []byte("\t" + key + "\n")}
	}
	h := m.Host()
	run := func(account string, change func(*config.Appliance)) []string {
		t.Helper()
		cfg := config.Default()
		cfg.Domain, cfg.Email = "vault.example.com", "ops@example.com"
		cfg.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/srv/backup"}}
		change(&cfg)
		if _, err := nameRecipients(h, &cfg, account); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cfg.Backup.Recipients, cfg.Escrow.Recipients) {
			t.Errorf("backups for %q, escrow for %q", cfg.Backup.Recipients, cfg.Escrow.Recipients)
		}
		text, err := config.Encode(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Parse(machine.ConfigFile, text); err != nil {
			t.Fatal(err)
		}
		m.Files[machine.ConfigFile] = &host.Node{Data: text}
		if err := cfg.Validate(machine.ConfigFile, text); err != nil {
			t.Error(err)
		}
		return cfg.Escrow.Recipients
	}
	none := func(*config.Appliance) {}
	if got := run("ann", none); !slices.Equal(got, []string{ann}) {
		t.Errorf("first run: %q", got)
	}
	if got := run("bob", none); !slices.Equal(got, []string{ann}) {
		t.Errorf("another's run: %q", got)
	}
	if got := run("ann", func(c *config.Appliance) { c.Escrow.Recipients = []string{bob} }); !slices.Equal(got, []string{bob}) {
		t.Errorf("named: %q", got)
	}
	m.Files[machine.ConfigFile].Data = []byte("[")
	cfg := config.Default()
	if _, err := nameRecipients(h, &cfg, "ann"); err == nil {
		t.Error("a damaged configuration was passed over")
	}
}
