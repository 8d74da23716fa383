package steps

import (
	"bytes"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/systemd"
)

// Each key of appliance.toml, changed there and back: what its class says is restarted is,
// nothing else is, plan tells of it by its name, and in the end all is as before.
func TestEachKeyThereAndBack(t *testing.T) {
	files := func(v *vps, c *config.Appliance) {
		e := v.env()
		ownCertificate("vault.example.com", time.Hour)(v, e)
		c.TLS = e.Config.TLS
	}
	acme := func(c *config.Appliance) { c.TLS.Mode, c.Email = config.TLSACME, "ops@example.com" }
	ca := func(v *vps, path string) string {
		e := v.env()
		ownCertificate("vault.example.com", 100*24*time.Hour)(v, e)
		v.Files[path] = v.Files[e.Config.TLS.CertFile]
		return path
	}
	secret := func(v *vps, file, text string) string {
		v.Files[file] = &host.Node{Info: host.Info{Attr: root(0o600)}, Data: []byte(text)}
		return file
	}
	table := map[string]func(*vps, *config.Appliance){
		"domain":                  func(_ *vps, c *config.Appliance) { c.Domain = "other.example.com" },
		"email":                   func(_ *vps, c *config.Appliance) { c.Email = "other@example.com" },
		"node.cluster_listen":     func(_ *vps, c *config.Appliance) { c.Node.ClusterListen = "127.0.0.1:8211" },
		"node.cluster_addr":       func(_ *vps, c *config.Appliance) { c.Node.ClusterAddr = "https://127.0.0.1:8211" },
		"node.peer[0].api_addr":   func(_ *vps, c *config.Appliance) { c.Node.Peers = []config.Peer{{APIAddr: "https://10.0.0.2:8200"}} },
		"vault.allow_old":         func(_ *vps, c *config.Appliance) { c.Vault.AllowOld = true },
		"vault.mirror":            func(_ *vps, c *config.Appliance) { c.Vault.Mirror = "https://mirror.example.com" },
		"vault.ui":                func(_ *vps, c *config.Appliance) { c.Vault.UI = true },
		"vault.log_level":         func(_ *vps, c *config.Appliance) { c.Vault.LogLevel = "warn" },
		"vault.default_lease_ttl": func(_ *vps, c *config.Appliance) { c.Vault.DefaultLeaseTTL = 2 * time.Hour },
		"vault.max_lease_ttl":     func(_ *vps, c *config.Appliance) { c.Vault.MaxLeaseTTL = 48 * time.Hour },
		"tls.mode":                func(_ *vps, c *config.Appliance) { acme(c) },
		"tls.cert_file":           func(v *vps, c *config.Appliance) { files(v, c) },
		"tls.key_file":            func(v *vps, c *config.Appliance) { files(v, c) },
		"tls.acme.directory": func(_ *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.Directory = "https://acme.example.com/directory"
		},
		"tls.acme.ca_file": func(v *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.Directory, c.TLS.ACME.CAFile = "https://acme.example.com/directory", ca(v, "/root/acme.crt")
		},
		"tls.acme.staging": func(_ *vps, c *config.Appliance) { acme(c); c.TLS.ACME.Staging = "none" },
		"tls.acme.fallback": func(_ *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.Fallback = "https://fallback.example.com/directory"
		},
		"tls.acme.eab": func(v *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.EAB = secret(v, "/root/eab", "key_id = \"k\"\nmac_key = \"bWFjLWtleS1vZi1zb21lLWxlbmd0aA\"\n")
		},
		"tls.acme.fallback_eab": func(v *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.Fallback = "https://fallback.example.com/directory"
			c.TLS.ACME.FallbackEAB = secret(v, "/root/eab", "key_id = \"k\"\nmac_key = \"bWFjLWtleS1vZi1zb21lLWxlbmd0aA\"\n")
		},
		"tls.acme.dns": func(v *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.DNS, c.TLS.ACME.DNSToken = "hetzner", secret(v, "/root/dns", "a-token-of-some-length\n")
		},
		"tls.acme.dns_token": func(v *vps, c *config.Appliance) {
			acme(c)
			c.TLS.ACME.DNS, c.TLS.ACME.DNSToken = "hetzner", secret(v, "/root/dns", "a-token-of-some-length\n")
		},
		"unseal.seal":             func(_ *vps, c *config.Appliance) { c.Unseal.Seal = config.SealHost },
		"firewall.manage":         func(_ *vps, c *config.Appliance) { c.Firewall.Manage = false },
		"firewall.ssh_port":       func(_ *vps, c *config.Appliance) { c.Firewall.SSHPort = 2222 },
		"firewall.ssh_from":       func(_ *vps, c *config.Appliance) { c.Firewall.SSHFrom = []string{"203.0.113.0/24"} },
		"firewall.database_ports": func(_ *vps, c *config.Appliance) { c.Firewall.DatabasePorts = []int{6432} },
		"firewall.confirm_within": func(_ *vps, c *config.Appliance) { c.Firewall.ConfirmWithin = time.Minute },
		"backup.recipients":       func(_ *vps, c *config.Appliance) { c.Backup.Recipients = []string{"age1x"} },
		"backup.files":            func(_ *vps, c *config.Appliance) { c.Backup.Files = []string{"/etc/strongroom"} },
		"backup.webhook_file": func(v *vps, c *config.Appliance) {
			c.Backup.WebhookFile = secret(v, "/root/hook", "https://hooks.example.com/x\n")
		},
		"backup.keep.hourly":  func(_ *vps, c *config.Appliance) { c.Backup.Keep.Hourly++ },
		"backup.keep.daily":   func(_ *vps, c *config.Appliance) { c.Backup.Keep.Daily++ },
		"backup.keep.weekly":  func(_ *vps, c *config.Appliance) { c.Backup.Keep.Weekly++ },
		"backup.keep.monthly": func(_ *vps, c *config.Appliance) { c.Backup.Keep.Monthly++ },
		"alert.webhook_file": func(v *vps, c *config.Appliance) {
			c.Alert.WebhookFile = secret(v, "/root/hook", "https://hooks.example.com/x\n")
		},
		"alert.repeat":        func(_ *vps, c *config.Appliance) { c.Alert.Repeat = 12 * time.Hour },
		"alert.mail.server":   func(_ *vps, c *config.Appliance) { c.Alert.Mail.Server = "smtp.example.com:587" },
		"alert.mail.from":     func(_ *vps, c *config.Appliance) { c.Alert.Mail.From = "vault@example.com" },
		"alert.mail.to":       func(_ *vps, c *config.Appliance) { c.Alert.Mail.To = []string{"ops@example.com"} },
		"alert.mail.security": func(_ *vps, c *config.Appliance) { c.Alert.Mail.Security = "tls" },
		"alert.mail.credentials": func(v *vps, c *config.Appliance) {
			c.Alert.Mail.Credentials = secret(v, "/root/smtp", "username = \"u\"\npassword = \"p\"\n")
		},
		"alert.mail.ca_file": func(v *vps, c *config.Appliance) { c.Alert.Mail.CAFile = ca(v, "/root/mail.crt") },
		"audit.rotate_mb":    func(_ *vps, c *config.Appliance) { c.Audit.RotateMB++ },
		"audit.rotate_after": func(_ *vps, c *config.Appliance) { c.Audit.RotateAfter += time.Hour },
		"audit.keep":         func(_ *vps, c *config.Appliance) { c.Audit.Keep += time.Hour },
		"audit.keep_mb":      func(_ *vps, c *config.Appliance) { c.Audit.KeepMB++ },
		"audit.warn_percent": func(_ *vps, c *config.Appliance) { c.Audit.WarnPercent++ },
		"audit.full_percent": func(_ *vps, c *config.Appliance) { c.Audit.FullPercent++ },
	}
	// Tried elsewhere: what is refused, what needs a program, a place or a person.
	elsewhere := regexp.MustCompile(`^(node\.id|vault\.product|vault\.version|escrow\..*|backup\.to\[0\]\..*|node\.peer\[0\]\.(ca_cert_file|tls_server_name))$`)
	for _, key := range config.Keys() {
		change, ok := table[key]
		if !ok {
			if !elsewhere.MatchString(key) {
				t.Errorf("%s: it has no row here", key)
			}
			continue
		}
		t.Run(key, func(t *testing.T) {
			v := newVPS(t)
			var out bytes.Buffer
			install := func(e *Env) {
				t.Helper()
				out.Reset()
				if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
					t.Fatalf("%v\n%s", err, out.String())
				}
			}
			change(v, new(config.Appliance)) // the files that it names
			install(v.env())
			before := v.state()
			v.Units[machine.UnitMetrics].Active, v.Units[machine.UnitMetrics].Since = "active", v.Clock
			since := map[string]time.Time{}
			for _, u := range systemd.Daemons() {
				since[u] = v.Units[u].Since
			}
			changed := func() *Env {
				e := v.env()
				e.SkipDNS = true
				change(v, &e.Config)
				e.Given = SealSecrets(&e.Config, "")
				return e
			}
			var plan bytes.Buffer
			_, _ = v.engine(changed(), &plan).Plan(t.Context())
			if !strings.Contains(plan.String(), "        "+key+": ") {
				t.Errorf("plan does not name it:\n%s", plan.String())
			}
			install(changed())
			class, _ := config.ClassOf(key)
			var made []string
			for _, u := range systemd.Daemons() {
				if !v.Units[u].Since.Equal(since[u]) {
					made = append(made, u)
				}
			}
			if key == "unseal.seal" {
				class.Restarts = nil // where there is no TPM, it is sealed so already
			}
			if key == "email" {
				class.Restarts = class.Restarts[:0:0] // the authority of one's own has no use for it
			}
			if !slices.Equal(made, class.Restarts) && !(key == "email" && slices.Equal(made, []string{machine.UnitFront})) {
				t.Errorf("restarted: %q, its class says %q", made, class.Restarts)
			}
			install(v.env())
			v.Units[machine.UnitMetrics].Active = "inactive"
			after := v.state()
			for _, all := range []map[string]string{before, after} { // but for folders of drop-ins, and the operator's
				maps.DeleteFunc(all, func(p, _ string) bool { return path.Ext(p) == ".d" || strings.HasPrefix(p, "/root/") })
			}
			for k, is := range after {
				if before[k] != is {
					t.Errorf("there and back: %s is %s, and was %s", k, is, before[k])
				}
			}
			for k := range before {
				if _, there := after[k]; !there {
					t.Errorf("there and back: %s is gone", k)
				}
			}
		})
	}
}
