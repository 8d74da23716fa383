package doctor

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// What resolved listens on by default the firewall drops, and to stop it would take DNS away.
func TestNamesOfTheNeighbourhood(t *testing.T) {
	b, s := healthy(t)
	resolved(t, b)
	if item := examineOne(t, *s, "listeners"); item.Verdict != evidence.Pass {
		t.Errorf("%+v", item)
	}
}

// An empty file of the machine's own takes a package's swap in memory away.
func TestNoSwapInMemory(t *testing.T) {
	b, s := healthy(t)
	b.file(zramConfigs[1], 0o644, 0, 0, "[zram0]\n")
	b.file(zramConfigs[0], 0o644, 0, 0, "")
	if item := examineOne(t, *s, "swap"); item.Verdict != evidence.Pass {
		t.Errorf("%+v", item)
	}
}

func TestHealthyMachinePasses(t *testing.T) {
	_, s := healthy(t)
	r := Examine(t.Context(), *s)
	if len(r.Items) != len(checks()) {
		t.Errorf("%d items, want %d", len(r.Items), len(checks()))
	}
	for n, i := range r.Items {
		if i.Number != n+1 {
			t.Errorf("item %s has the number %d at place %d", i.ID, i.Number, n+1)
		}
		if i.Verdict != evidence.Pass {
			t.Errorf("%s: %s: %+v", i.ID, i.Verdict, i.Reasons)
		}
		if len(i.Evidence) == 0 {
			t.Errorf("%s passed without evidence", i.ID)
		}
		for _, q := range i.Questions {
			if q.Answer != Yes {
				t.Errorf("%s: %q is answered with %q", i.ID, q.Question, q.Answer)
			}
		}
	}
	if r.Failed() || len(r.Fixes()) > 0 {
		t.Errorf("failed %t, fixes %v", r.Failed(), r.Fixes())
	}
}

// At the end of an installation the first looks of every minute are yet to come, also
// where a machine has been up for long, and where an earlier installation has left one.
func TestNoLookYet(t *testing.T) {
	b, s := healthy(t)
	armed("4000.2", "3990000000")(t, b, s)
	watchedFirewall(evidence.Firewall{At: minuteAgo.Add(-time.Hour)})(t, b, s)
	b.units[machine.UnitFirewallWatchTimer] = b.units[machine.UnitAuditWatchTimer]
	r := Examine(t.Context(), *s)
	for _, id := range []string{"audit-devices", "firewall"} {
		if i, _ := r.Item(id); i.Verdict != evidence.Pass {
			t.Errorf("%s is %s: %+v", id, i.Verdict, i.Reasons)
		}
	}
}

func TestBrokenMachines(t *testing.T) {
	tried := map[string]bool{}
	for _, c := range broken {
		t.Run(c.id+"/"+c.name, func(t *testing.T) {
			b, s := healthy(t)
			c.do(t, b, s)
			b.afterFixes(t)
			r := Examine(t.Context(), *s)
			i, ok := r.Item(c.id)
			if !ok || i.Verdict != c.verdict {
				t.Fatalf("%s is %q, want %q: %+v", c.id, i.Verdict, c.verdict, i.Reasons)
			}
			if !hasReason(i, c.says) {
				t.Errorf("reasons %+v, want %q in one", i.Reasons, c.says)
			}
			for _, reason := range i.Reasons {
				if reason.Verdict != evidence.Skip && reason.Remedy == "" {
					t.Errorf("no remedy for %q", reason.Text)
				}
			}
			whole, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{token, "hunter22", "abcdef0123456789"} {
				if bytes.Contains(whole, []byte(secret)) {
					t.Error("the report quotes a secret")
				}
			}
			var fixes int
			for _, f := range r.Fixes() {
				if f.Item != c.id {
					continue
				}
				fixes++
				if err := f.Apply(t.Context(), b); err != nil {
					t.Fatal(err)
				}
			}
			if (fixes > 0) != c.fixed {
				t.Fatalf("%d fixes, want some = %t", fixes, c.fixed)
			}
			if after, _ := Examine(t.Context(), *s).Item(c.id); c.fixed && after.Verdict != evidence.Pass {
				t.Errorf("after the fix: %s: %+v", after.Verdict, after.Reasons)
			}
		})
		if c.verdict != evidence.Skip {
			tried[c.id] = true
		}
	}
	for _, c := range checks() {
		if !tried[c.id] {
			t.Errorf("nothing breaks %s", c.id)
		}
	}
}

func hasReason(i Item, want string) bool {
	for _, r := range i.Reasons {
		if strings.Contains(r.Text, want) {
			return true
		}
	}
	return false
}

// afterFixes has the commands of fixes do what they do on a machine.
func firstOf(text string, _ error) string { return text }

func (b *box) afterFixes(t *testing.T) {
	b.commands["swapoff -a"] = func([]string) (string, error) {
		b.files["/proc/swaps"].data = "Filename\n"
		return "", nil
	}
	b.commands["sysctl -q -w fs.suid_dumpable=0"] = func([]string) (string, error) {
		b.files["/proc/sys/fs/suid_dumpable"].data = "0\n"
		return "", nil
	}
	b.commands["timedatectl set-ntp true"] = func([]string) (string, error) {
		b.commands["timedatectl show"] = says("NTP=yes\nNTPSynchronized=yes\n")
		return "", nil
	}
	b.commands["systemctl restart "+machine.UnitFirewall] = func([]string) (string, error) {
		b.commands["nft -j -t list ruleset"] = says(loadedTable(t))
		return "", nil
	}
	b.commands["systemctl start "+machine.UnitFirewallWatch] = func([]string) (string, error) {
		if !strings.Contains(firstOf(b.commands["nft -j -t list ruleset"](nil)), "strongroom") {
			t.Error("the look comes before the firewall")
		}
		return "", nil
	}
	b.commands["systemctl enable"] = func(args []string) (string, error) {
		u := b.units[args[len(args)-1]]
		u["UnitFileState"] = "enabled"
		if len(args) == 4 {
			u["ActiveState"] = "active"
		}
		return "", nil
	}
}

// Without anything but a config, nothing passes that could not be seen, and
// nothing panics.
func TestNothingVisible(t *testing.T) {
	b, s := healthy(t)
	for _, n := range b.files {
		n.err = fs.ErrPermission
	}
	b.commands = map[string]func([]string) (string, error){"": func([]string) (string, error) { return "", fs.ErrPermission }}
	b.units, b.answers = nil, nil
	s.NoLogin, s.NoConfig, s.Config = errNoVault, fs.ErrPermission, config.Appliance{}
	r := Examine(t.Context(), *s)
	for n, i := range r.Items {
		// The jobs' states and Vault's health can be seen.
		if i.ID == "escrow" || i.ID == "backup-drill" || i.ID == "vault-version" {
			continue
		}
		if i.Verdict == evidence.Pass {
			t.Errorf("%s passed: %+v", i.ID, i.Evidence)
		}
		// What must not be there is not, and that is seen.
		saw := slices.Contains([]string{"root-token", "one-config", "drift", "audit-devices"}, i.ID)
		if blind := !checks()[n].operation && !saw; i.Blind != blind {
			t.Errorf("%s: blind %t, want %t: %+v", i.ID, i.Blind, blind, i.Questions)
		}
	}
	if len(r.Blind()) == 0 {
		t.Error("nothing was seen, and that is no fault")
	}
}

// A standby takes no backups, and nothing is wrong with that: not even what it
// verified when it led, long ago.
func TestStandbyPasses(t *testing.T) {
	for _, led := range []bool{false, true} {
		b, s := healthy(t)
		stoodAside(t, s, b.now.Add(-50*time.Minute))
		if led {
			verified(t, s, b.now.AddDate(0, -1, 0))
		} else {
			unlink(t, filepath.Join(s.Places.Verify, "verified.json"))
		}
		if i, _ := Examine(t.Context(), *s).Item("backup-drill"); i.Verdict != evidence.Pass {
			t.Errorf("led %t: %s: %+v", led, i.Verdict, i.Reasons)
		}
	}
}

// Of each place the doctor says whether what is there can be deleted.
func TestImmutablePlaces(t *testing.T) {
	b, s := healthy(t)
	at := b.now.Add(-time.Minute).Format(time.RFC3339)
	record := func(place, more string) string {
		return fmt.Sprintf(`%q:{"id":"c/20261124T113000Z-aaaaaaaa","taken_at":%q,"verified_at":%q,"size":1000%s}`, place, at, at, more)
	}
	until := b.now.AddDate(0, 0, 30).Format(time.RFC3339)
	write(t, filepath.Join(s.Places.Verify, "verified.json"), []byte(`{"format":1,"last_good":{`+
		record("s3:h/held", `,"locked_until":"`+until+`"`)+","+record("s3:h/over", `,"locked_until":"`+at+`"`)+","+record("dir:/mnt", "")+`}}`))
	text := fmt.Sprintf("%+v", examineOne(t, *s, "backup-drill"))
	for _, want := range []string{"s3:h/held: nobody can delete the newest one before " + until, "s3:h/over: who can write there", "dir:/mnt: who can write there can delete all of it (no object lock)"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestReportIsKept(t *testing.T) {
	_, s := healthy(t)
	r := Examine(t.Context(), *s)
	if err := r.Save(s.Places.Doctor); err != nil {
		t.Fatal(err)
	}
	d, err := evidence.ReadDoctor(s.Places)
	if err != nil || d.Pass != len(r.Items) || d.Fail != 0 || !d.At.Equal(r.At) {
		t.Errorf("read back %+v, %v", d, err)
	}
}

func nullBlob() string {
	raw := make([]byte, 100)
	copy(raw, credential.NoKey)
	return base64.StdEncoding.EncodeToString(raw)
}

// Whoever writes the report, it belongs to the group of its folder.
func TestReportHasItsFoldersGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: groups can't be given away")
	}
	_, s := healthy(t)
	const group = 54321
	if err := os.Chown(s.Places.Doctor, 0, group); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Examine(t.Context(), *s).Save(s.Places.Doctor); err != nil {
			t.Fatal(err)
		}
		info, err := OSMachine{}.Stat(LastPath(s.Places.Doctor))
		if err != nil || info.GID != group || info.Mode != 0o640 {
			t.Errorf("%+v, %v", info, err)
		}
	}
}
