package systemd

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/config/machine"
)

// maxExposure is the score that no service may exceed: systemd-analyze(1)
// security, from 0 (nothing exposed) to 10.
const maxExposure = 1.5

func services() []string {
	return slices.DeleteFunc(Names(), func(n string) bool { return filepath.Ext(n) != ".service" })
}

func TestNames(t *testing.T) {
	var want []string
	for _, kind := range []string{"service", "socket", "timer", "path"} {
		found, err := filepath.Glob("*." + kind)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, found...)
	}
	slices.Sort(want)
	got := Names()
	if !slices.Equal(got, want) {
		t.Errorf("names = %q, the folder holds %q", got, want)
	}
	for _, named := range []string{
		machine.UnitFrontHTTP, machine.UnitFrontHTTPS, machine.UnitFront, machine.UnitKMS, machine.UnitKMSSocket, machine.UnitVault, machine.UnitFirewall,
		machine.UnitSnapshot, machine.UnitSnapshotTimer, machine.UnitSnapshotPath, machine.UnitSnapshotSoon, machine.UnitFiles, machine.UnitFilesSocket, machine.UnitVerify, machine.UnitVerifyPath, machine.UnitAlert, machine.UnitAudit, machine.UnitAuditTimer, machine.UnitAuditWatch, machine.UnitAuditWatchTimer, machine.UnitFirewallWatch, machine.UnitFirewallWatchTimer, machine.UnitMetrics, machine.UnitMetricsSocket,
		machine.UnitAuthority, machine.UnitAuthoritySocket, machine.UnitUnfinished, machine.UnitUnfinishedTimer,
		machine.UnitDoctor, machine.UnitDoctorNet, machine.UnitDoctorTimer,
	} {
		if !slices.Contains(got, named) {
			t.Errorf("no unit %q", named)
		}
	}
	if _, err := Unit("no.service"); err == nil {
		t.Error("no error for a unit that isn't there")
	}
}

// unpack writes all units to a folder, with programs that are there on any
// machine in place of ours, so that systemd-analyze minds only the units.
func unpack(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here")
	}
	dir := t.TempDir()
	programs := regexp.MustCompile(`(?m)^(Exec\w+)=\S+`)
	for _, n := range Names() {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		b = programs.ReplaceAll(b, []byte("$1=/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVerify(t *testing.T) {
	dir := unpack(t)
	args := []string{"verify", "--man=no"}
	for _, n := range Names() {
		args = append(args, filepath.Join(dir, n))
	}
	cmd := exec.Command("systemd-analyze", args...)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	// It tells of unknown settings in words only.
	for line := range strings.Lines(string(out)) {
		for _, n := range Names() {
			if strings.Contains(line, n) {
				t.Errorf("%s", strings.TrimSpace(line))
			}
		}
	}
}

// TestFirewallBesideNftables: nftables.service flushes all tables, ours too. It
// is itself only ordered before network-pre.target and shutdown.target, so that
// coming after it makes no cycle as long as ours waits for nothing later.
func TestFirewallBesideNftables(t *testing.T) {
	b, err := Unit(machine.UnitFirewall)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PartOf=nftables.service", "ReloadPropagatedFrom=nftables.service", "After=local-fs.target nftables.service",
		"Before=network-pre.target shutdown.target", "DefaultDependencies=no",
	} {
		if !strings.Contains(string(b), "\n"+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	if n := strings.Count(string(b), "\nAfter="); n != 1 {
		t.Errorf("%d lines with After=", n)
	}
}

func TestExposure(t *testing.T) {
	dir := unpack(t)
	score := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`)
	for _, n := range services() {
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", filepath.Join(dir, n)).CombinedOutput()
		m := score.FindSubmatch(out)
		if m == nil {
			t.Fatalf("%s: %v\n%s", n, err, out)
		}
		got, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f", n, got)
		if got > maxExposure {
			t.Errorf("%s: exposure %.1f, at most %.1f is wanted", n, got, maxExposure)
		}
	}
}

// setting is the value of one that a unit has once; empty without it.
func setting(unit, key string) string {
	_, rest, _ := strings.Cut("\n"+unit, "\n"+key+"=")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// What faces the network has no capability, and who is root, or has one, has no network:
// but for those that only ask for rules and tables.
func TestRights(t *testing.T) {
	ofNetwork := map[string]string{machine.UnitFirewall: "CAP_NET_ADMIN", machine.UnitDoctorNet: "CAP_NET_ADMIN", machine.UnitFirewallWatch: "CAP_NET_ADMIN"}
	for _, n := range services() {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		unit := string(b)
		user, caps, network := setting(unit, "User"), setting(unit, "CapabilityBoundingSet"), setting(unit, "PrivateNetwork") != "yes"
		if !strings.Contains(unit, "\nCapabilityBoundingSet=") {
			t.Errorf("%s: its capabilities are not bounded", n)
		}
		if network && caps != ofNetwork[n] {
			t.Errorf("%s has the network and %s", n, caps)
		}
		if network && user == "root" {
			t.Errorf("%s is root's and has the network", n)
		}
		// Whoever is Vault's user, or of its group, or may read all, must not reach what opens
		// the master key.
		hidden := setting(unit, "InaccessiblePaths")
		ofVault := user == machine.UserVault || slices.Contains(strings.Fields(setting(unit, "SupplementaryGroups")), machine.UserVault)
		if (ofVault || caps != "" && caps != "CAP_NET_ADMIN") && n != machine.UnitVault && n != machine.UnitDoctor && !strings.Contains(hidden, "-"+path.Dir(machine.KMSSocket)) {
			t.Errorf("%s reaches the KMS", n)
		}
	}
}

// What is hidden from the job that packs files is what the configuration refuses to name.
func TestHiddenFromPacking(t *testing.T) {
	b, err := Unit(machine.UnitFiles)
	if err != nil {
		t.Fatal(err)
	}
	hidden := []string{"/home", "/root", "/run/user"} // systemd.exec(5), ProtectHome=
	if setting(string(b), "ProtectHome") != "yes" {
		hidden = nil
	}
	for p := range strings.FieldsSeq(setting(string(b), "InaccessiblePaths")) {
		hidden = append(hidden, strings.TrimPrefix(p, "-"))
	}
	if want := machine.HiddenFromPacking(); !slices.Equal(hidden, want) {
		t.Errorf("hidden are %q, config/machine has %q", hidden, want)
	}
}

// Where memory is short the front goes first and Vault and its KMS last; a bound of their
// own would end those two for nothing.
func TestWhoGoesFirst(t *testing.T) {
	for _, n := range services() {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		score, bound := setting(string(b), "OOMScoreAdjust"), setting(string(b), "MemoryMax")
		switch n {
		case machine.UnitVault, machine.UnitKMS:
			if score != "-900" || bound != "" {
				t.Errorf("%s: score %q, MemoryMax=%q", n, score, bound)
			}
		case machine.UnitFront:
			if score != "900" || bound == "" {
				t.Errorf("%s: score %q, MemoryMax=%q", n, score, bound)
			}
		case machine.UnitAlert, machine.UnitFirewall, machine.UnitFrontCertificate:
			// They end at once; who tells of what has ended stays.
		default:
			if at, err := strconv.Atoi(score); err != nil || at <= 0 || at >= 900 || bound == "" && n != machine.UnitDrill {
				t.Errorf("%s: score %q, MemoryMax=%q", n, score, bound)
			}
		}
	}
}

// The messenger outlives what it tells of: a root that is read-only, and a lack of memory.
func TestTheMessengerOutlives(t *testing.T) {
	for _, n := range []string{machine.UnitAlert, machine.UnitUnfinished} {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, needsRoot := range []string{"PrivateTmp", "PrivateDevices"} {
			if setting(string(b), needsRoot) != "" {
				t.Errorf("%s: %s= wants a root that can be written", n, needsRoot)
			}
		}
	}
	b, err := Unit(machine.UnitAlert)
	if err != nil {
		t.Fatal(err)
	}
	if setting(string(b), "MemoryMin") == "" || setting(string(b), "OOMScoreAdjust") >= "0" {
		t.Errorf("where memory is short the messenger goes, too")
	}
}

func TestInvariants(t *testing.T) {
	for _, n := range services() {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		text := "\n" + string(b)
		for _, want := range []string{"\nLimitCORE=0\n", "\nNoNewPrivileges=yes\n", "\nProtectSystem=strict\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", n, strings.TrimSpace(want))
			}
		}
		daemon := strings.Contains(text, "\nType=notify\n")
		// systemd must never give a daemon up, nor let one end stay ended.
		if daemon && (!strings.Contains(text, "\nStartLimitIntervalSec=0\n") || !strings.Contains(text, "\nRestart=always\n")) {
			t.Errorf("%s: systemd may leave it down", n)
		}
		if daemon && !strings.Contains(text, "\nMemorySwapMax=0\n") {
			t.Errorf("%s may be swapped out", n)
		}
	}
	for _, n := range []string{machine.UnitSnapshot, machine.UnitSnapshotSoon, machine.UnitVerify, machine.UnitAudit, machine.UnitDoctor} {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "\nOnFailure=strongroom-alert@%n.service\n") {
			t.Errorf("%s fails without a word to anybody", n)
		}
	}
	// Given up once, a renewed certificate would be seen by nobody.
	for _, n := range []string{machine.UnitFrontCertificate, machine.UnitFrontCertificatePath} {
		b, err := Unit(n)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "\nStartLimitIntervalSec=0\n") {
			t.Errorf("systemd may give %s up", n)
		}
	}
	kms, err := Unit(machine.UnitKMS)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(kms), "\nPrivateUsers=") {
		t.Error("PrivateUsers= on the KMS makes every foreign uid look the same")
	}
	if got := string(KMSDropIn(998)); !strings.Contains(got, "\nEnvironment=VAULT_UID=998\n") {
		t.Errorf("drop-in:\n%s", got)
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"certificate": {CertificateDropIn("/a/100%.crt", "/a/b.key"), "\nLoadCredential=tls.crt:/a/100%%.crt\nLoadCredential=tls.key:/a/b.key\n"},
		"path":        {CertificatePathDropIn("/a/100%.crt", "/a/b.key"), "\n[Path]\nPathChanged=/a/100%%.crt\nPathChanged=/a/b.key\n"},
		"files":       {FrontFilesDropIn(), "\n[Unit]\nWants=strongroom-front-certificate.service\n"},
		"ACME":        {FrontACMEDropIn("/ca.crt", []string{"acme-eab"}), "\nLoadCredential=acme-ca.crt:/ca.crt\nLoadCredentialEncrypted=acme-eab:/etc/strongroom/credentials/acme-eab\n"},
	} {
		if !strings.Contains(string(c.text), c.want) {
			t.Errorf("%s drop-in: %s", name, c.text)
		}
	}
	want := "\nReadWritePaths=\"-/mnt/50%% of it\"\nLoadCredentialEncrypted=second-s3:/etc/strongroom/credentials/second-s3\n"
	if got := string(JobDropIn([]string{"/mnt/50% of it"}, []string{"second-s3"})); !strings.Contains(got, want) {
		t.Errorf("drop-in:\n%s", got)
	}
	if got := machine.DropInPath(machine.UnitKMS, "vault-uid"); got != "/etc/systemd/system/strongroom-kms.service.d/vault-uid.conf" {
		t.Errorf("drop-in's path = %q", got)
	}
}
