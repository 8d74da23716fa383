package test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/systemd"
)

// ofTheMachine finds the paths and units that config/machine names.
var ofTheMachine = regexp.MustCompile(`/(?:etc/strongroom|etc/systemd/system|var/lib/strongroom|var/lib/vault|var/log/vault|run/vault|run/strongroom|run/credentials|usr/local/bin|usr/local/lib/strongroom)[\w./@-]*|\bstrongroom-[a-z0-9-]+@?\.(?:service|timer|socket|path)\b|\bvault\.service\b|\bvault-plugin-secrets-\w+`)

// machineNames are the values of all constants of config/machine.
func machineNames(t *testing.T) map[string]bool {
	t.Helper()
	fset := token.NewFileSet()
	var files []*ast.File
	names, err := filepath.Glob("../config/machine/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		f, err := parser.ParseFile(fset, n, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// What it imports isn't looked at: no constant needs it.
	conf := types.Config{Error: func(error) {}}
	pkg, _ := conf.Check("machine", fset, files, nil)
	values := map[string]bool{}
	for _, n := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(n).(*types.Const); ok && c.Val().Kind() == constant.String {
			values[constant.StringVal(c.Val())] = true
		}
	}
	if len(values) < 100 {
		t.Fatalf("only %d constants were read", len(values))
	}
	return values
}

// respelt says what is wrong with a string literal: it is a name of the machine's
// typed again, or prose that speaks of one that there is not.
func respelt(text string, known map[string]bool) string {
	for _, found := range ofTheMachine.FindAllString(text, -1) {
		if !strings.ContainsAny(text, " \n") {
			return "is typed again: ask config/machine"
		}
		found = strings.TrimRight(found, "./")
		if !known[found] && !known[path.Dir(found)] {
			return "speaks of " + strconv.Quote(found) + ", which config/machine does not know"
		}
	}
	return ""
}

// A fact stands once.
func TestMachineStandsOnce(t *testing.T) {
	known := machineNames(t)
	literals := 0
	for _, top := range []string{"appliance", "config", "installer", "plugin", "systemd"} {
		err := filepath.WalkDir("../"+top, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && p == "../config/machine" {
				return fs.SkipDir
			}
			// The plugin imports nothing of ours; TestPluginName holds its own.
			if filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") || strings.HasPrefix(p, "../plugin/cmd/") {
				return nil
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, p, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				literals++
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Error(err)
				}
				if why := respelt(text, known); why != "" {
					t.Errorf("%s: %.60s… %s", fset.Position(lit.Pos()), lit.Value, why)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if literals < 1000 {
		t.Fatalf("only %d literals were seen: the test looks in the wrong place", literals)
	}
}

func TestRespelt(t *testing.T) {
	known := machineNames(t)
	for text, bad := range map[string]bool{
		"/etc/strongroom/vault.hcl":                     true,
		"/etc/strongroom/":                              true,
		"unix:///run/vault/vault.sock":                  true,
		"strongroom-new.service":                        true,
		"vault.service":                                 true,
		"vault-plugin-secrets-apikeys":                  true,
		"see strongroom-drill.service.":                 false,
		"see strongroom-drills.service":                 true,
		"see /var/lib/strongroom/drill/last.json":       false,
		"see /var/lib/strongroom/drills/last.json":      true,
		"scp root@h:/var/lib/strongroom-front/root.crt": false,
		"/etc/hosts":                                    false,
		"vault.servicexyz":                              false,
	} {
		if why := respelt(text, known); (why != "") != bad {
			t.Errorf("%q: %q, want bad=%t", text, why, bad)
		}
	}
}

func TestPluginName(t *testing.T) {
	if _, err := os.Stat("../plugin/cmd/" + machine.PluginName); err != nil {
		t.Error(err)
	}
}

// The policies speak of the mounts that there are, and each job that logs in has
// one.
func TestPoliciesAgreeWithMachine(t *testing.T) {
	policies := config.Policies()
	for _, job := range machine.Jobs() {
		if policies["strongroom-"+job] == "" {
			t.Errorf("the job %s has no policy", job)
		}
	}
	mounts := []string{"*", "sys", "auth", "identity", machine.MountKeys, machine.MountKV, machine.MountDatabase}
	// Others' methods are wherever apps.toml has them.
	logins := []string{"+", "token", machine.AuthAppRole, machine.AuthUserpass, machine.AuthLocal}
	paths := regexp.MustCompile(`(?m)^path "([^"]+)"`)
	seen := 0
	for name, text := range policies {
		for _, m := range paths.FindAllStringSubmatch(text, -1) {
			seen++
			parts := strings.Split(m[1], "/")
			if !slices.Contains(mounts, parts[0]) || parts[0] == "auth" && !slices.Contains(logins, parts[1]) {
				t.Errorf("%s: %q: there is no such mount in config/machine", name, m[1])
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d paths were seen", seen)
	}
}

// Templates hold no name of the machine but the firewall's table: what else there
// is they are told.
func TestTemplatesAgreeWithMachine(t *testing.T) {
	known := machineNames(t)
	files, err := filepath.Glob("../config/*.tmpl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no templates: %v", err)
	}
	table := regexp.MustCompile(`table inet (\S+)`)
	for _, f := range append(files, "../config/appliance.toml") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range ofTheMachine.FindAllString(string(b), -1) {
			if found = strings.TrimRight(found, "./"); !known[found] && !known[path.Dir(found)] {
				t.Errorf("%s: %q is not in config/machine", f, found)
			}
		}
		for _, m := range table.FindAllStringSubmatch(string(b), -1) {
			if m[1] != machine.FirewallTable {
				t.Errorf("%s: the table is %q, want %q", f, m[1], machine.FirewallTable)
			}
		}
	}
}

// unitFault says what is wrong with a line of a unit; "" for nothing.
func unitFault(unit, line string, known map[string]bool) string {
	key, value, ok := strings.Cut(line, "=")
	if !ok || strings.HasPrefix(line, "#") {
		return ""
	}
	users := append(machine.Users(), "root")
	words := strings.Fields(value)
	oneOf := func(known []string, words ...string) string {
		for _, w := range words {
			if !slices.Contains(known, w) {
				return strconv.Quote(w) + " is not in config/machine"
			}
		}
		return ""
	}
	switch key {
	case "User", "Group", "SocketUser", "SocketGroup":
		return oneOf(users, value)
	case "SupplementaryGroups":
		return oneOf(append(users, "systemd-journal"), words...)
	case "StateDirectory":
		for i := range words {
			words[i] = "/var/lib/" + words[i]
		}
		return oneOf([]string{machine.VaultData, machine.RaftDir, path.Dir(machine.ChangedFile), machine.FrontData,
			machine.SnapshotState, machine.VerifyState, machine.DrillState, machine.DoctorState, machine.AuditState, machine.AuditWatchState, machine.AlertState}, words...)
	case "LogsDirectory":
		return oneOf([]string{machine.AuditDir}, "/var/log/"+value)
	case "RuntimeDirectory":
		for i := range words {
			words[i] = "/run/" + words[i]
		}
		return oneOf([]string{machine.VaultRun, machine.VaultRun + "/plugins", machine.FrontRun, path.Dir(machine.NetworkReport), machine.FirewallWatchRun}, words...)
	case "LoadCredential", "LoadCredentialEncrypted":
		name, file, _ := strings.Cut(value, ":")
		want := machine.TLSDir + "/" + name
		if key == "LoadCredentialEncrypted" {
			want = machine.CredentialFile(name)
		}
		if file != want {
			return strconv.Quote(file) + ", want " + strconv.Quote(want)
		}
		return oneOf(slices.Collect(maps.Keys(known)), name)
	case "ExecStart", "ExecStartPre", "ExecStartPost", "ExecStop", "ExecReload":
		if p := strings.TrimLeft(words[0], "-+!:@"); !slices.Contains([]string{machine.Program, machine.VaultProgram, "/usr/sbin/nft", "/bin/kill"}, p) {
			return strconv.Quote(p) + " is no program of config/machine"
		}
	case "After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "OnFailure", "Service", "Unit", "ReloadPropagatedFrom":
		for _, w := range words {
			w = strings.ReplaceAll(w, "@%n.service", "@.service")
			if machine.IsUnit(w) && !slices.Contains(machine.Units(), w) {
				return strconv.Quote(w) + " is no unit of config/machine"
			}
		}
	}
	for _, found := range ofTheMachine.FindAllString(value, -1) {
		found = strings.TrimRight(found, "./")
		if !known[found] && !known[path.Dir(found)] && !slices.Contains(machine.Units(), found) {
			return strconv.Quote(found) + " is not in config/machine"
		}
	}
	return ""
}

func TestUnitsAgreeWithMachine(t *testing.T) {
	want := machine.Units()
	slices.Sort(want)
	if got := systemd.Names(); !slices.Equal(got, want) {
		t.Errorf("the units are %q, config/machine has %q", got, want)
	}
	known := machineNames(t)
	for _, name := range systemd.Names() {
		b, err := systemd.Unit(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if why := unitFault(name, strings.TrimSpace(line), known); why != "" {
				t.Errorf("%s: %s: %s", name, strings.TrimSpace(line), why)
			}
		}
	}
	if b, err := systemd.Unit(machine.UnitKMSSocket); err != nil || !strings.Contains(string(b), "\nListenStream="+machine.KMSSocket+"\n") {
		t.Errorf("the KMS's socket is not %q (%v)", machine.KMSSocket, err)
	}
	for _, bad := range []string{
		"User=nobody", "SupplementaryGroups=vault wheel", "StateDirectory=strongroom/other", "LogsDirectory=other", "RuntimeDirectory=other",
		"LoadCredentialEncrypted=backup-s4:/etc/strongroom/credentials/backup-s4", "LoadCredentialEncrypted=backup-s3:/etc/strongroom/credentials/other",
		"LoadCredential=ca.crt:/etc/strongroom/ca.crt", "ExecStart=/usr/bin/strongroom kms", "Requires=strongroom-other.socket",
		"ReadWritePaths=/var/lib/vault/x/y", "Environment=A=/etc/strongroom/b/c",
	} {
		if unitFault("", bad, known) == "" {
			t.Errorf("%s: no fault", bad)
		}
	}
}

// There is one lock, in statefile: one that is made anew forgets that links are
// not followed and that children hold it on. Below it atomicfile marks by one what is
// under way, so that what a kill has left is told from it; nobody waits for that.
func TestLockStandsOnce(t *testing.T) {
	call := regexp.MustCompile(`(?i)\bflock(64)?\b|LOCK_(EX|SH)|F_(OFD_)?SETLK`)
	var found []string
	for _, top := range []string{"appliance", "config", "installer", "plugin", "systemd"} {
		err := filepath.WalkDir("../"+top, func(p string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
				return err
			}
			b, err := os.ReadFile(p)
			if call.Match(b) {
				found = append(found, p)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"../appliance/base/atomicfile/sweep.go", "../appliance/base/statefile/lock.go"}; !slices.Equal(found, want) {
		t.Errorf("locks are made in %q, want %q", found, want)
	}
}

// Programs are run by base/command, which has a PATH and an environment of its
// own, but for those that are given by their path or belong to who asks.
func TestCommandsHaveTheirOwnPath(t *testing.T) {
	allowed := map[string]string{
		"../appliance/base/command/command.go":         "is the one",
		"../appliance/base/proc/proc.go":               "daemons of a scratch Vault, by path, each with its environment",
		"../appliance/secrets/migrate/history.go":      "the person's git",
		"../appliance/secrets/migrate/patch_python.go": "the person's Python, or the system's",
		"../appliance/cli/programs.go":                 "looks for the person's Vault",
		"../appliance/cli/cmd_env_exec.go":             "the person's program",
		"../appliance/backup/scratch/programs.go":      "asks a program that was given by its path for its version",
		"../appliance/cli/cmd_front.go":                "this program again",
		"../appliance/demo/ending.go":                  "whether the person has a vault to type",
	}
	call := regexp.MustCompile(`\bexec\.(Command|CommandContext|LookPath)\(|\bos\.StartProcess\(|\bsyscall\.(Exec|ForkExec)\(`)
	seen := map[string]bool{}
	for _, top := range []string{"appliance", "config", "installer", "plugin", "systemd"} {
		err := filepath.WalkDir("../"+top, func(p string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
				return err
			}
			b, err := os.ReadFile(p)
			if call.Match(b) {
				seen[p] = true
				if allowed[p] == "" {
					t.Errorf("%s runs a program from the caller's PATH: use base/command, or say here why not", p)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for p := range allowed {
		if !seen[p] {
			t.Errorf("%s runs nothing: take it out of the list", p)
		}
	}
}
