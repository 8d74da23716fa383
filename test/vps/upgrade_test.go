package vps_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/installer/upgrade"
	"strongroom.example/test/vaulttest"
)

const (
	nextVersion = "9.8.0"  // of the appliance
	nextVault   = "1.21.9" // what its Vault calls itself
)

// upgraded is a machine whose upgrades are tested, and what is stored on it.
type upgraded struct {
	*machine
	before string // the versions
	stored same
}

// TestUpgrade is an installation that is upgraded badly, then well, killed at
// every phase, and in the end uninstalled.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	m := boot(t, "upg")
	u := &upgraded{machine: m}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"install", u.install},
		{"what can't be upgraded", u.refusals},
		{"rehearsal rejects", u.rejects},
		{"rolls back by itself", u.rollsBack},
		{"upgrade, killed at every phase", u.killed},
		{"as after an installation", u.after},
		{"uninstall keeps the data", func(t *testing.T) { testUninstall(t, m) }},
		{"purge", func(t *testing.T) { testPurge(t, m) }},
	} {
		if !t.Run(step.name, step.do) {
			return
		}
	}
}

func (u *upgraded) install(t *testing.T) {
	u.installByCloudInit(t)
	token := login(t, u.machine)
	for path, body := range map[string]map[string]any{
		"secret/data/app/production/db": {"data": map[string]any{"url": "postgres://canary"}},
		"apikeys/providers/own":         {"type": "generated"},
	} {
		if status, out := u.vault(t, u.client(roots(t, u.machine)), "POST", path, token, body); status/100 != 2 {
			t.Fatalf("%s: status %d, %v", path, status, out)
		}
	}
	if status, out := u.vault(t, u.client(roots(t, u.machine)), "POST", "apikeys/keys/app/production/api", token, map[string]any{"provider": "own"}); status/100 != 2 {
		t.Fatalf("key: status %d, %v", status, out)
	}
	u.stored, u.before = u.machine.stored(t, token), u.programVersions(t, token)
	// Programs that don't work, but say that they are what they should be.
	for name, text := range map[string]string{
		"broken-vault":  "#!/bin/sh\n[ \"$1\" = version ] && echo 'Vault v1.21.8' && exit 0\nexit 1\n",
		"broken-plugin": "#!/bin/sh\n[ \"$1\" = --version ] && echo 'vault-plugin-secrets-apikeys " + nextVersion + " (test)' && exit 0\nexit 1\n",
	} {
		u.write(t, "/root/"+name, []byte(text))
		if err := os.Chmod(filepath.Join(u.disk, "root", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u.must(t, "put", u.name, buildInstaller(t, nextVersion, nil), "/root/good-installer")
	u.must(t, "put", u.name, buildInstaller(t, nextVersion, map[string]string{
		"strongroom":                   vaulttest.Bin(t, "strongroom"),
		"vault-plugin-secrets-apikeys": filepath.Join(u.disk, "root", "broken-plugin"),
	}), "/root/bad-installer")
	u.must(t, "put", u.name, otherVault(t, nextVault), "/root/next-vault")
	u.use(t, "good")
}

// installByCloudInit is the installation that nobody watches. The download is
// there already, as after a first try that failed later, and so is Vault.
func (u *upgraded) installByCloudInit(t *testing.T) {
	t.Helper()
	u.write(t, "/root/edit", []byte(`#!/bin/sh
cat >"$1" <<END
domain = "`+domain+`"
[vault]
version = "1.21.1"
allow_old = true
[tls]
mode = "internal"
END
`))
	u.sh(t, "mkdir /root/cloud; cd /root/cloud; chmod 700 /root/edit; export EDITOR=/root/edit\n"+docsCode(t, "cloud-init.md", "cloud-init", "/root/strongroom-installer"))
	u.sh(t, `install -m 755 /root/vault /usr/local/bin/vault
		install -D -m 700 /root/strongroom-installer /root/strongroom/strongroom-installer`)
	data := u.read(t, "/root/cloud/user-data")
	t.Logf("%d bytes of user data", len(data))
	u.cloudInit(t, data)
	u.waitFor(t, patience, "ls /etc/systemd/system/strongroom-first-boot.service 2>/dev/null || true", "")
}

// use makes one of the installers the new one.
func (u *upgraded) use(t *testing.T, which string) {
	t.Helper()
	u.sh(t, "ln -f /root/"+which+"-installer /root/new-installer")
}

// asBefore checks that nothing has changed.
func (u *upgraded) asBefore(t *testing.T) {
	t.Helper()
	unsealed(t, u.machine)
	token := login(t, u.machine)
	if got := u.programVersions(t, token); got != u.before {
		t.Errorf("versions: %s, they were %s", got, u.before)
	}
	if got := u.machine.stored(t, token); got != u.stored {
		t.Error("what was stored is not read as before")
	}
	if r := u.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("the old installer finds differences: exit code %d:\n%s", r.code, r)
	}
	if out := u.sh(t, "systemctl --failed --no-legend | grep -v doctor || true"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
}

func (u *upgraded) refusals(t *testing.T) {
	u.write(t, "/root/token", []byte("hvs.nobody\n"))
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no token", []string{"/root/new-installer", "upgrade", "--yes"}, 4, "token is needed"},
		{"a bad token", u.upgradeArgs(nil), 4, "refuses the token"},
		{"no terminal", []string{"/root/new-installer", "upgrade", "--token-file", "/root/token"}, 4, ""},
		{"not Vault", u.upgradeArgs([]string{"--vault-binary", "/bin/true"}), 2, "is no Vault"},
	} {
		if r := u.in(t, c.args...); r.code != c.code || !strings.Contains(r.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.name, r.code, c.code, c.want, r)
		}
	}
	note := strings.Split(strings.TrimSpace(u.escrow(t, "admin.age")), "\n")
	u.write(t, "/root/password", []byte(note[len(note)-1]))
	code := docsCode(t, "upgrade.md", "plan", "/root/new-installer")
	r := u.in(t, "sh", "-c", strings.ReplaceAll(code, "username=admin", "username=admin password=@/root/password"))
	u.sh(t, "rm /root/password")
	if r.code != 3 || !strings.Contains(r.stdout, nextVersion) || !strings.Contains(r.stdout, "Nothing has been changed") {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
}

// rejects: on a copy the new programs don't work, so nothing is changed.
func (u *upgraded) rejects(t *testing.T) {
	u.use(t, "bad")
	r := u.upgrade(t, "--patience", "20s")
	u.use(t, "good")
	if r.code != 1 || !strings.Contains(r.stderr, "rehearsal") || !strings.Contains(r.stderr, "nothing has been changed") {
		t.Fatalf("plugin: exit code %d:\n%s", r.code, r)
	}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		if r := u.upgrade(t, "--vault-binary", "/root/broken-vault", "--patience", "20s"); r.code != 1 || !strings.Contains(r.stderr, "nothing has been changed") {
			t.Errorf("Vault: exit code %d:\n%s", r.code, r)
		}
	}
	u.asBefore(t)
}

// rollsBack: without a rehearsal the same is found on the machine itself.
func (u *upgraded) rollsBack(t *testing.T) {
	for _, c := range []struct {
		name, installer string
		more            []string
	}{
		{"plugin", "bad", nil},
		{"Vault", "good", []string{"--vault-binary", "/root/broken-vault"}},
	} {
		u.use(t, c.installer)
		r := u.upgrade(t, append(c.more, "--skip-rehearsal", "a test", "--patience", "20s")...)
		if r.code != 1 || !strings.Contains(r.stderr, "rolled back") {
			t.Fatalf("%s: exit code %d:\n%s", c.name, r.code, r)
		}
		t.Logf("%s: rolled back after %.1f s in all", c.name, r.took.Seconds())
		u.asBefore(t)
	}
	u.use(t, "good")
}

// killed ends the upgrade with SIGKILL at each phase that leaves something to go
// on with (soak: at every one), on the way to one upgrade, while a client waits.
func (u *upgraded) killed(t *testing.T) {
	args := []string{"--vault-binary", "/root/next-vault"}
	u.write(t, "/root/token", []byte(login(t, u.machine)+"\n"))
	waits := u.waiting(t)
	phases := []upgrade.Phase{ // begun anew, then gone on with
		upgrade.Keeping, upgrade.Quiet, upgrade.Storage, upgrade.Applying, upgrade.Switching, upgrade.Checking, upgrade.Settling,
	}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		phases = append([]upgrade.Phase{upgrade.Staging, upgrade.Snapshot, upgrade.Rehearsal}, phases...)
	}
	for i, at := range phases {
		more := args
		// Rehearsed once: in the run that comes as far as the first change.
		if at != upgrade.Rehearsal && at != upgrade.Quiet {
			more = append(more[:len(more):len(more)], "--skip-rehearsal", "a test")
		}
		r, died := u.upgradeAndKill(t, at, more...)
		if !died {
			// Too short to be caught, and gone by.
			if r.code == 0 {
				t.Logf("the upgrade was done before it could be killed while %s:\n%s", at, r)
				break
			}
			t.Fatalf("not killed while %s, exit code %d:\n%s", at, r.code, r)
		}
		t.Logf("%2d  killed while %s", i+1, at)
		if at == upgrade.Storage {
			// Vault stands still, and nobody is at it: the machine says so by itself.
			if r := u.in(t, "systemctl", "start", "strongroom-unfinished"); r.code == 0 {
				t.Errorf("nothing is said of the upgrade that was killed:\n%s", r)
			}
			if said := u.sh(t, "journalctl -u strongroom-unfinished --no-pager -o cat -n 10"); !strings.Contains(said, "was stopped while storage") || !strings.Contains(said, "upgrade --rollback") {
				t.Errorf("it is said:\n%s", said)
			}
		}
	}
	code := docsCode(t, "upgrade.md", "upgrade", "/root/new-installer")
	r := u.in(t, "sh", "-ec", strings.ReplaceAll(code, " upgrade ", " upgrade --yes --allow-old-vault --patience 5m --vault-binary /root/next-vault "))
	if r.code != 0 {
		t.Fatalf("the last run: exit code %d:\n%s", r.code, r)
	}
	unsealed(t, u.machine)
	select {
	case status := <-waits:
		if status != http.StatusNotModified && status != http.StatusOK {
			t.Errorf("the waiting client got status %d", status)
		}
	case <-time.After(patience):
		t.Error("the waiting client still waits")
	}
	token := login(t, u.machine)
	if got, want := u.programVersions(t, token), nextVersion+" plugin v"+nextVersion+" Vault "+nextVault; got != want {
		t.Errorf("versions: %s, want %s", got, want)
	}
	if got := u.machine.stored(t, token); got != u.stored {
		t.Error("what was stored is not read as before")
	}
	if u.record() != nil {
		t.Error("the upgrade is still unfinished")
	}
	u.sh(t, "systemctl start strongroom-unfinished")
}

// waiting is a client that waits for a new version; the channel gives the
// status of its answer.
func (u *upgraded) waiting(t *testing.T) <-chan int {
	t.Helper()
	token, c := login(t, u.machine), u.client(roots(t, u.machine))
	c.Timeout = patience
	req, err := http.NewRequest("GET", "https://"+domain+"/v1/apikeys/creds/app/production/api?if_version=1&wait=60", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	got := make(chan int, 1)
	go func() {
		resp, err := c.Do(req)
		if err != nil {
			got <- 0
			return
		}
		resp.Body.Close()
		got <- resp.StatusCode
	}()
	return got
}

func (u *upgraded) after(t *testing.T) {
	if r := u.in(t, "/root/new-installer", "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	if r := u.upgrade(t); r.code != 0 || strings.Contains(r.stdout, "snapshot of what is there") {
		t.Errorf("a second upgrade: exit code %d:\n%s", r.code, r)
	}
	// The last version is still there, side by side.
	plugins := u.sh(t, "ls /usr/local/lib/strongroom/plugins")
	old := strings.TrimPrefix(strings.Fields(u.before)[2], "v")
	if !strings.Contains(plugins, old+"\n") || !strings.Contains(plugins, nextVersion+"\n") {
		t.Errorf("plugins:\n%s", plugins)
	}
	if out := u.sh(t, docsCode(t, "upgrade.md", "rollback", "/root/new-installer")); !strings.Contains(out, "no unfinished upgrade") {
		t.Errorf("rollback of nothing:\n%s", out)
	}
	if out := u.sh(t, docsCode(t, "upgrade.md", "after", "/root/new-installer")); !strings.Contains(out, `"outcome": "upgraded"`) || !strings.Contains(out, `"rehearsed": "passed"`) {
		t.Errorf("the record:\n%s", out)
	}
	u.sh(t, "rm /root/token")
	if out := u.sh(t, "grep -rlaE '\\bhvs\\.[A-Za-z0-9_-]{24,}' /etc /root /tmp /var/lib/strongroom /var/log /run 2>/dev/null | grep -v '^/run/log/journal' || true"); out != "" {
		t.Errorf("a token is left in:\n%s", out)
	}
	if out := u.sh(t, "journalctl --no-pager | grep -cE '\\bhvs\\.[A-Za-z0-9_-]{24,}' || true"); strings.TrimSpace(out) != "0" {
		t.Error("a token is in the journal")
	}
	if out := u.sh(t, "systemctl --failed --no-legend | grep -v doctor || true"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
}
