package vps_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	appliance "strongroom.example/appliance/cli"
	"strongroom.example/config"
	installer "strongroom.example/installer/cli"
	"strongroom.example/test/vaulttest"
)

// block is one fenced block of a page.
type block struct {
	lang string // "" for pictures and what programs print
	name string // of the comment <!-- test: name --> before it
	text string
}

var fenced = regexp.MustCompile("(?ms)^(?: *<!-- test: ([a-z-]+) -->\n)? *```([a-z]*)\n(.*?)^ *```$")

// blocksOf gives every fenced block of a page in docs/.
func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	for _, m := range fenced.FindAllStringSubmatch(string(b), -1) {
		out = append(out, block{lang: m[2], name: m[1], text: m[3]})
	}
	if n := strings.Count(string(b), "```"); n != 2*len(out) {
		t.Fatalf("docs/%s: %d blocks are found, and %d fences", page, len(out), n)
	}
	return out
}

// ledger says of every block in docs/ that holds commands, settings or code which
// file of tests runs or reads it. "*" are the blocks of a page that its test takes
// all, one after the other; a block without a name goes by its first line.
var ledger = map[string]map[string]string{
	"apps.md": {
		"apply": "test/e2e/apps_docs_test.go", "prune": "test/e2e/apps_docs_test.go", "bundle": "test/e2e/apps_docs_test.go", "open": "test/e2e/apps_docs_test.go", "log-in": "test/e2e/apps_docs_test.go", "access": "test/e2e/apps_docs_test.go", "renew": "test/e2e/apps_docs_test.go", "renew-unit": "test/e2e/apps_docs_test.go", "password": "test/e2e/apps_docs_test.go",
		`manifest = "data-team"`: "test/vps/docs_ledger_test.go", `[[auth]]`: "test/vps/docs_ledger_test.go",
	},
	"people.md": {"end": "test/e2e/apps_person_test.go", "allow": "test/e2e/apps_person_test.go", "prune": "test/e2e/apps_person_test.go"},
	"README.md": {}, "architecture.md": {}, "commands.md": {},
	"backup.md": {
		"[backup]": "test/vps/docs_ledger_test.go", `access_key = "…"`: "test/vps/docs_ledger_test.go",
		"strongroom snapshot list": "appliance/cli/docs_test.go",
		"strongroom snapshot verify --id CLUSTER/20261124T151500Z-1a2b3c4d --unsigned --identity key.txt": "appliance/cli/docs_test.go",
		"strongroom snapshot take --dir /mnt/backup --recipient ~/.ssh/id_ed25519.pub --token-file token": "appliance/cli/docs_test.go",
		"strongroom snapshot prune --dry-run": "appliance/cli/docs_test.go", "strongroom snapshot retire CLUSTER/20300101T000000Z-1a2b3c4d": "appliance/cli/docs_test.go",
		"stock": "test/vps/docs_end_test.go", "elsewhere": "test/vps/docs_end_test.go",
	},
	"certificates.md": {
		"acme": "test/vps/docs_ledger_test.go", "dns": "test/vps/docs_ledger_test.go", "files": "test/vps/docs_ledger_test.go",
		"warnings": "test/vps/acme_test.go", "local": "test/vps/acme_test.go", "new-root": "test/vps/front_storage_test.go",
		"renewed": "test/vps/own_certificate_test.go", "handed": "test/vps/own_certificate_test.go",
	},
	"cloud-init.md": {
		"cloud-init": "test/vps/upgrade_test.go", "create": "test/vps/docs_ledger_test.go",
		"follow": "test/vps/docs_end_test.go", "add": "test/vps/docs_end_test.go",
	},
	"dagster.md": {"*": "python/tests/test_docs.py"},
	"databases.md": {
		"postgresql-account": "test/e2e/apps_postgres_test.go", "check-db": "test/e2e/apps_postgres_test.go",
		"mariadb-account": "test/e2e/apps_mariadb_test.go", "mysql-kill-user": "test/e2e/apps_mariadb_test.go",
		"postgresql-admin-option": "test/e2e/apps_postgres_newer_test.go", "[[database]]": "test/vps/docs_ledger_test.go",
	},
	"disaster-recovery.md": {
		"restore": "test/vps/disaster_test.go", "clean": "test/vps/disaster_after_test.go",
		"without-key": "test/vps/docs_end_test.go", "by-hand": "test/vps/docs_end_test.go",
	},
	"drill.md": {
		"by-hand": "test/vps/drill_test.go", "by-unit": "test/vps/drill_test.go", "verify": "test/vps/drill_test.go", "verify-elsewhere": "test/vps/drill_test.go",
		"another": "test/vps/docs_test.go", "rehearse": "test/vps/docs_test.go",
	},
	"escrow.md": {
		"copy": "test/vps/docs_test.go", "challenge": "test/vps/docs_test.go", "line": "test/vps/docs_test.go",
		"confirm": "test/vps/docs_test.go", "pipe": "test/vps/docs_test.go", "one": "test/vps/docs_test.go",
		"generate-root": "test/vps/docs_test.go",
	},
	"locked-out.md": {"login": "test/vps/docs_test.go", "logout": "test/vps/docs_test.go", "anew": "test/vps/docs_test.go", "unlock": "test/vps/docs_test.go"},
	"firewall.md":   {"look": "test/vps/docs_end_test.go", "ssh-from": "test/vps/docs_end_test.go"},
	"install.md": {
		"install": "test/vps/docs_test.go", "without-backups": "test/vps/docs_test.go", "places": "test/vps/docs_ledger_test.go",
		"plan": "test/vps/docs_test.go", "copy": "test/vps/docs_test.go", "log-in": "test/vps/docs_test.go", "later": "test/vps/docs_test.go",
	},
	"openbao.md": {
		"verify": "test/openbao_docs_test.go", "install": "test/openbao_docs_test.go", "product": "test/vps/docs_ledger_test.go",
		"move-out": "test/e2e/openbao_move_test.go", "move-in": "test/e2e/openbao_move_test.go",
		"move-end": "test/e2e/openbao_move_test.go",
	},
	"migrate.md": {
		"scan": "test/e2e/migrate_docs_test.go", "entry": "test/e2e/migrate_docs_test.go", "check": "test/e2e/migrate_docs_test.go", "plan": "test/e2e/migrate_docs_test.go", "apply": "test/e2e/migrate_docs_test.go", "cutover": "test/e2e/migrate_docs_test.go",
		"exec": "test/e2e/migrate_docs_test.go", "again": "test/e2e/migrate_docs_test.go", "rollback": "test/e2e/migrate_docs_test.go", "kv": "test/e2e/migrate_docs_test.go", "versions": "test/e2e/migrate_docs_test.go",
	},
	"monitoring.md": {
		"alert": "appliance/cli/cmd_metrics_test.go", "audit": "appliance/cli/cmd_metrics_test.go", "scrape": "test/vps/docs_ledger_test.go",
		"alert-test": "test/vps/docs_test.go", "metrics": "test/vps/docs_test.go", "rules": "test/vps/docs_test.go",
		"timers": "test/vps/docs_test.go", "audit-rotate": "test/vps/docs_test.go", "audit-watch": "test/vps/docs_test.go",
	},
	"performance.md": {},
	"providers.md":   {"*": "test/e2e/providers_test.go"},
	"read-keys-with-others.md": {
		"policy": "test/e2e/apikeys_readers_test.go", "agent": "test/e2e/apikeys_readers_test.go", "vso": "test/e2e/apikeys_readers_test.go",
		"vso-dynamic": "test/e2e/apikeys_readers_test.go", "eso": "test/e2e/apikeys_readers_test.go", "terraform": "test/e2e/apikeys_readers_test.go",
	},
	"restore.md":     {"*": "appliance/cli/docs_test.go"},
	"rotate-keys.md": {"*": "test/e2e/apikeys_docs_test.go"},
	"security.md":    {},
	"status.md":      {"*": "appliance/cli/docs_test.go"},
	"uninstall.md":   {"uninstall": "test/vps/uninstall_test.go", "purge": "test/vps/docs_end_test.go"},
	"unseal.md": {
		"fingerprint": "test/vps/kms_test.go", "export": "test/vps/kms_test.go", "rotate": "test/vps/kms_test.go", "confirm": "test/vps/kms_test.go", "sealed": "test/vps/kms_test.go",
		"escrow-fingerprint": "test/vps/docs_test.go", "next": "test/vps/docs_test.go", "put-back": "test/vps/docs_test.go",
		"credentials-again": "test/vps/docs_ledger_test.go",
	},
	"upgrade.md": {
		"plan": "test/vps/upgrade_test.go", "upgrade": "test/vps/upgrade_test.go", "rollback": "test/vps/upgrade_test.go", "after": "test/vps/upgrade_test.go",
	},
}

// TestEveryBlockIsRun fails on a page, or on a block of one, that no test takes.
func TestEveryBlockIsRun(t *testing.T) {
	root := vaulttest.Root(t)
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(files) != len(ledger) {
		t.Errorf("%d pages in docs/, %d in the ledger: %v", len(files), len(ledger), err)
	}
	for _, file := range files {
		page := filepath.Base(file)
		tests, ok := ledger[page]
		if !ok {
			t.Errorf("docs/%s is in no test's ledger: who runs its commands?", page)
			continue
		}
		seen := map[string]bool{}
		for _, b := range blocksOf(t, page) {
			key := b.name
			if key == "" {
				first, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
				key = first
			}
			if tests[key] == "" && (b.lang == "" && b.name == "" || tests["*"] != "" && b.name == "") {
				continue // a picture or an output; or taken with the whole page
			}
			if tests[key] == "" {
				t.Errorf("docs/%s: no test takes the block %q", page, key)
			}
			if seen[key] {
				t.Errorf("docs/%s: two blocks are %q", page, key)
			}
			seen[key] = true
		}
		for key, test := range tests {
			if key != "*" && !seen[key] {
				t.Errorf("docs/%s has no block %q; the ledger says that %s takes it", page, key, test)
			}
			source, err := os.ReadFile(filepath.Join(root, test))
			if err != nil {
				t.Errorf("docs/%s: %q: %v", page, key, err)
				continue
			}
			if !strings.Contains(string(source), `"`+page+`"`) {
				t.Errorf("docs/%s: %s does not speak of that page", page, test)
			}
			if named := regexp.MustCompile(`^[a-z-]+$`).MatchString(key); named && !slices.Contains([]string{"audit", "alert"}, key) && !strings.Contains(string(source), `"`+key+`"`) {
				t.Errorf("docs/%s: %s does not take the block %q", page, test, key)
			}
		}
	}
}

// TestCommandsAreTaken holds every command of our two programs in every page
// against their verbs and flags, those too that a test can't run whole.
func TestCommandsAreTaken(t *testing.T) {
	programs := map[string]func() *cobra.Command{
		"strongroom":           func() *cobra.Command { return appliance.New("test") },
		"strongroom-installer": func() *cobra.Command { return installer.New("test", "test") },
	}
	found := map[string]int{}
	start := regexp.MustCompile(`(?:^|[|;&'] *|sudo |root@\S+ +'?)(?:\./)?(strongroom(?:-installer)?) ([^|;&#>'\n]*)`)
	for page := range ledger {
		for _, b := range blocksOf(t, page) {
			if b.lang != "sh" {
				continue
			}
			for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
				for _, m := range start.FindAllStringSubmatch(strings.TrimSpace(line), -1) {
					found[m[1]]++
					verb, rest, err := programs[m[1]]().Find(strings.Fields(m[2]))
					if err == nil {
						err = verb.ParseFlags(rest)
					}
					if err == nil {
						err = verb.ValidateArgs(verb.Flags().Args())
					}
					if err != nil || verb.RunE == nil {
						t.Errorf("docs/%s: %q: %v", page, m[0], err)
					}
				}
			}
		}
	}
	if found["strongroom"] < 60 || found["strongroom-installer"] < 14 {
		t.Errorf("only %v commands are found", found)
	}
}

// TestCreateServer: Hetzner's API is not asked. What the command gives it is what
// the page's first block writes.
func TestCreateServer(t *testing.T) {
	create, writes := onPage(t, "cloud-init.md", "create"), onPage(t, "cloud-init.md", "cloud-init")
	_, file, ok := strings.Cut(create, "--user-data-from-file ")
	if _, written, redirected := strings.Cut(writes, " >"); !ok || !redirected || written != file {
		t.Errorf("%q is given, %q is written", file, written)
	}
}

// TestSettingsAreTaken reads every table of settings in the pages as the programs
// do.
func TestSettingsAreTaken(t *testing.T) {
	const anApp = "[[app]]\nname = \"a\"\n[[app.environment]]\nname = \"production\"\n"
	whole := func(text string) error {
		_, err := config.Parse("appliance.toml", []byte("domain = \"vault.example.com\"\nemail = \"ops@example.com\"\n"+text))
		return err
	}
	apps := func(text string) error {
		if !strings.Contains(text, "[[app]]") {
			text = "manifest = \"m\"\n" + strings.Replace(text, "[[app.environment", anApp+"[[app.environment", 1)
		}
		_, err := config.ParseApps("apps.toml", []byte(text))
		return err
	}
	for _, c := range []struct {
		page, key string
		take      func(string) error
	}{
		{"install.md", "places", whole},
		{"openbao.md", "product", whole},
		{"certificates.md", "acme", whole},
		{"certificates.md", "dns", whole},
		{"certificates.md", "files", whole},
		{"backup.md", "[backup]", func(text string) error {
			return whole(strings.Replace(text, "ssh-ed25519 AAAA… you@laptop", "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg", 1))
		}},
		{"backup.md", "access_key = \"…\"", func(text string) error {
			var pair struct {
				AccessKey string `toml:"access_key"`
				SecretKey string `toml:"secret_key"`
			}
			meta, err := toml.Decode(text, &pair)
			if len(meta.Undecoded()) > 0 || pair.AccessKey == "" || pair.SecretKey == "" {
				t.Errorf("the key pair is %+v", pair)
			}
			return err
		}},
		// One file, which speaks of the database of the other page.
		{"apps.md", "manifest = \"data-team\"", func(text string) error {
			return apps(text + textBlock(t, "apps.md", "[[auth]]") + "\n[[database]]\nname = \"bikes\"\nengine = \"postgresql\"\nexternal = true\n")
		}},
		{"databases.md", "[[database]]", apps},
		{"monitoring.md", "scrape", func(text string) error {
			var prometheus struct {
				Scrape []struct {
					Job     string                       `yaml:"job_name"`
					Path    string                       `yaml:"metrics_path"`
					Targets []struct{ Targets []string } `yaml:"static_configs"`
				} `yaml:"scrape_configs"`
			}
			dec := yaml.NewDecoder(strings.NewReader(text))
			dec.KnownFields(true)
			err := dec.Decode(&prometheus)
			if len(prometheus.Scrape) != 2 || prometheus.Scrape[1].Path != "/vault" {
				t.Errorf("the jobs are %+v", prometheus.Scrape)
			}
			return err
		}},
	} {
		taken := false
		for _, b := range blocksOf(t, c.page) {
			first, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
			if b.name != c.key && first != c.key {
				continue
			}
			taken = true
			if err := c.take(b.text); err != nil {
				t.Errorf("docs/%s, %s: %v", c.page, c.key, err)
			}
		}
		if !taken {
			t.Errorf("docs/%s has no block %q", c.page, c.key)
		}
	}
}
