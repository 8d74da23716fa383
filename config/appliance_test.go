package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

const minimal = "domain = \"vault.example.com\"\nemail = \"ops@example.com\"\n"

func TestParseFillsDefaults(t *testing.T) {
	a, err := Parse("f", []byte(minimal+`
[vault]
ui = true
max_lease_ttl = "90d"
[firewall]
ssh_from = ["10.0.0.0/8"]
[[node.peer]]
api_addr = "https://10.0.0.2:8200"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Domain, want.Email = "vault.example.com", "ops@example.com"
	want.Vault.UI, want.Vault.MaxLeaseTTL = true, 90*24*time.Hour
	want.Firewall.SSHFrom = []string{"10.0.0.0/8"}
	want.Node.Peers = []Peer{{APIAddr: "https://10.0.0.2:8200"}}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("got  %+v\nwant %+v", a, want)
	}
	if err := a.Validate("", nil); err != nil {
		t.Error(err)
	}
}

func TestEveryFaultWithLineAndField(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.toml")
	src := `Domain = "vault.example.com"
email = 7
[node]
id = "a b"
colour = "red"

[[node.peer]]
api_addr = "https://10.0.0.2:8200"

[[node.peer]]
api_addr = "http://10.0.0.3" # not https
[vault]
version = "1.21.1"
default_lease_ttl = "soon"
[escrow]
recipients = [
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPFSrj7WwHSZhuJP3nygfuBkisEaHQOnP0ivfQaD0Ncj",
  "ecdsa-sha2-nistp256 AAAA",
]
threshold = 9
[firewall]
manage = "yes"
ssh_from = "10.0.0.0/8"
`
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(file)
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error = %v", err)
	}
	got := strings.ReplaceAll(err.Error(), file, "F")
	for _, want := range []string{
		"F:1: Domain: unknown key; known here: domain, email,",
		"F: domain: is required",
		"F:2: email: a text in quotes is wanted, this is a number",
		"F:4: node.id: \"a b\" holds ' '",
		"F:5: node.colour: unknown key; known here: peer, id,",
		"F:11: node.peer[1].api_addr: \"http://10.0.0.3\" is not a URL",
		"F:13: vault.version: \"1.21.1\" is below 2.2.2",
		"F:14: vault.default_lease_ttl: \"soon\" is not a duration",
		"F:16: escrow.recipients[1]: age can't encrypt to an SSH key of type",
		"F:20: escrow.threshold: 9 does not fit 5 shares",
		"F:22: firewall.manage: true or false is wanted, this is a text",
		"F:23: firewall.ssh_from: a list is wanted, this is a text",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if len(faults) != 13 { // the e-mail address is also missing
		t.Errorf("%d faults:\n%s", len(faults), got)
	}
	for i := 1; i < len(faults); i++ {
		if faults[i].Line < faults[i-1].Line {
			t.Errorf("not in the file's order:\n%s", got)
		}
	}
}

func TestSyntaxFault(t *testing.T) {
	_, err := Parse("f.toml", []byte("domain = \"a.b\"\n\nemail = \n"))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Line != 3 {
		t.Errorf("error = %v", err)
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		head, rest string // head: the top-level keys, where not minimal's
		want       string // "": accepted
	}{
		"good":              {minimal, "", ""},
		"ip as domain":      {`domain = "10.0.0.1"` + "\nemail = \"ops@example.com\"\n", "", "domain: \"10.0.0.1\" is not a domain name"},
		"one label":         {`domain = "vault"` + "\nemail = \"ops@example.com\"\n", "", "domain: "},
		"capital":           {`domain = "Vault.example.com"` + "\nemail = \"ops@example.com\"\n", "", "domain: "},
		"url":               {`domain = "https://vault.example.com"` + "\nemail = \"ops@example.com\"\n", "", "domain: "},
		"bad email":         {`email = "Ops <ops@example.com>"` + "\ndomain = \"vault.example.com\"\n", "", "email: "},
		"dotted user":       {`email = "a.b@localhost"` + "\ndomain = \"vault.example.com\"\n", "", "email: "},
		"email host":        {`email = "ops@localhost"` + "\ndomain = \"vault.example.com\"\n", "", "email: "},
		"internal no email": {"domain = \"vault.internal.lan\"\n", "[tls]\nmode = \"internal\"", ""},
		"tls mode":          {minimal, "[tls]\nmode = \"magic\"", `tls.mode: "magic" is none of acme, internal, files`},
		"files without":     {minimal, "[tls]\nmode = \"files\"", "tls.cert_file: is empty"},
		"files with acme":   {minimal, "[tls]\nmode = \"files\"\ncert_file=\"/a\"\nkey_file=\"/b\"\n[tls.acme]\ndirectory=\"https://x\"", "tls.acme: is only for mode"},
		"cert without mode": {minimal, "[tls]\ncert_file = \"/a\"", "tls.cert_file: is only for mode"},
		"plain ACME":        {minimal, "[tls.acme]\ndirectory = \"http://x/dir\"", "tls.acme.directory: "},
		"ACME whole": {minimal, "[tls.acme]\ndirectory = \"https://ca.lan:9000/dir\"\nca_file = \"/a\"\nstaging = \"none\"\neab = \"acme-eab\"\n" +
			"fallback = \"https://x/dir\"\nfallback_eab = \"/b\"\ndns = \"hetzner\"\ndns_token = \"/c\"", ""},
		"ACME staging":        {minimal, "[tls.acme]\nstaging = \"off\"", `tls.acme.staging: "off" is not an https URL`},
		"ACME user in URL":    {minimal, "[tls.acme]\nfallback = \"https://u:canary@x/dir\"", `tls.acme.fallback: "https://u:xxxxx@x/dir" holds more than an address`},
		"ACME relative file":  {minimal, "[tls.acme]\neab = \"a/b\"", "tls.acme.eab: "},
		"ACME lone eab":       {minimal, "[tls.acme]\nfallback_eab = \"/b\"", "tls.acme.fallback_eab: says nothing without fallback"},
		"ACME other DNS":      {minimal, "[tls.acme]\ndns = \"route53\"\ndns_token = \"/c\"", `tls.acme.dns: "route53" is none of hetzner`},
		"ACME DNS tokenless":  {minimal, "[tls.acme]\ndns = \"hetzner\"", "tls.acme.dns_token: is required"},
		"ACME token for none": {minimal, "[tls.acme]\ndns_token = \"/c\"", "tls.acme.dns_token: says nothing without dns"},
		"old allowed":         {minimal, "[vault]\nversion = \"1.21.1\"\nallow_old = true", ""},
		"newer":               {minimal, "[vault]\nversion = \"2.3.0+ent\"", ""},
		"pre-release":         {minimal, "[vault]\nversion = \"2.2.2-rc1\"", "vault.version: "},
		"no version":          {minimal, "[vault]\nversion = \"latest\"", "vault.version: \"latest\" is not a version"},
		"OpenBao":             {minimal, "[vault]\nproduct = \"openbao\"", ""},
		"OpenBao inline":      {minimal + "vault = { product = \"openbao\" }\n", "", ""},
		"OpenBao, old":        {minimal, "[vault]\nproduct = \"openbao\"\nversion = \"2.5.0\"", `vault.version: "2.5.0" is below 2.7.2, OpenBao's oldest`},
		"OpenBao by mirror":   {minimal, "[vault]\nproduct = \"openbao\"\nmirror = \"https://x\"", "vault.mirror: "},
		"no product":          {minimal, "[vault]\nproduct = \"\"", `vault.product: "" is none of vault, openbao`},
		"another product":     {minimal, "[vault]\nproduct = \"OpenBao\"", `vault.product: "OpenBao" is none of vault, openbao`},
		"lease order":         {minimal, "[vault]\ndefault_lease_ttl = \"25h\"", "vault.default_lease_ttl: "},
		"one share":           {minimal, "[escrow]\nshares = 1\nthreshold = 1", ""},
		"any one of five":     {minimal, "[escrow]\nthreshold = 1", "escrow.threshold: "},
		"age recipient":       {minimal, "[escrow]\nrecipients = [\"age1e5k5jnwjq570n284j082hysuspze5c63mrh6jmh697y7zfs98p2sravda2\"]", ""},
		"ssh port":            {minimal, "[firewall]\nssh_port = 0", "firewall.ssh_port: "},
		"front's port":        {minimal, "[firewall]\nssh_port = 443", "firewall.ssh_port: "},
		"database ports":      {minimal, "[firewall]\ndatabase_ports = [6432, 25060]", ""},
		"no database port":    {minimal, "[firewall]\ndatabase_ports = [6432, 65536]", "firewall.database_ports[1]: 65536 is not a port"},
		"hidden files":        {minimal, "[backup]\nfiles = [\"/etc/strongroom\", \"/root/.ssh\", \"/home\"]", "backup.files[1]: \"/root/.ssh\" is hidden from the job"},
		"files beside them":   {minimal, "[backup]\nfiles = [\"/etc/sshd\", \"/var/lib/strongroom-front\", \"/rootfs\", \"/var/lib/vaultwarden\"]", ""},
		"nobody":              {minimal, "[firewall]\nssh_from = []", "firewall.ssh_from: is empty"},
		"host bits":           {minimal, "[firewall]\nssh_from = [\"10.0.0.1/8\"]", "firewall.ssh_from[0]: "},
		"quick":               {minimal, "[firewall]\nconfirm_within = \"1s\"", "firewall.confirm_within: "},
		"list at loopback":    {minimal, "[node]\ncluster_listen = \"10.0.0.1:8201\"\ncluster_addr = \"https://10.0.0.1:8201\"", ""},
		"cluster on all":      {minimal, "[node]\ncluster_listen = \"0.0.0.0:8201\"", "node.cluster_listen: "},
		"cluster on all v6":   {minimal, "[node]\ncluster_listen = \"[::]:8201\"", "node.cluster_listen: "},
		"cluster on mapped":   {minimal, "[node]\ncluster_listen = \"[::ffff:0.0.0.0]:8201\"", "node.cluster_listen: "},
		"cluster port's name": {minimal, "[node]\ncluster_listen = \"10.0.0.1:http\"", "node.cluster_listen: "},
		"cluster on v6":       {minimal, "[node]\ncluster_listen = \"[2001:db8::1]:8201\"", ""},
		"reached nowhere":     {minimal, "[node]\ncluster_addr = \"https://0.0.0.0:8201\"", "node.cluster_addr: "},
		"peer nowhere":        {minimal, "[[node.peer]]\napi_addr = \"https://[::]:443\"", "node.peer[0].api_addr: "},
		"endless leases":      {minimal, "[vault]\nmax_lease_ttl = \"36500d\"", "vault.max_lease_ttl: "},
		"leases of a year":    {minimal, "[vault]\nmax_lease_ttl = \"366d\"", ""},
		"endless lock":        {minimal, "[[backup.to]]\ntype = \"s3\"\nendpoint = \"https://a.example.com\"\nbucket = \"b\"\ncredentials = \"c\"\nlock_for = \"36500d\"", "backup.to[0].lock_for: "},
		"endless backups":     {minimal, "[backup.keep]\ndaily = 36500", "backup.keep.daily: "},
		"endless audit":       {minimal, "[audit]\nkeep = \"36500d\"", "audit.keep: "},
		"one endless log":     {minimal, "[audit]\nrotate_after = \"36500d\"\nkeep = \"36500d\"", "audit.rotate_after: "},
		"cluster by name":     {minimal, "[node]\ncluster_listen = \"host:8201\"", "node.cluster_listen: "},
	} {
		t.Run(name, func(t *testing.T) {
			src := []byte(c.head + c.rest)
			a, err := Parse("f", src)
			if err == nil {
				err = a.Validate("f", src)
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}

func TestPrivateKeyIsNotQuoted(t *testing.T) {
	a := Default()
	a.Escrow.Recipients = []string{"AGE-SECRET-KEY-1QQQQ"}
	err := a.Validate("", nil)
	if err == nil || strings.Contains(err.Error(), "QQQQ") || !strings.Contains(err.Error(), "is a private key") {
		t.Errorf("error = %v", err)
	}
}

func TestTemplateIsTheDefault(t *testing.T) {
	src := string(ApplianceTemplate())
	a, err := Parse("appliance.toml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Escrow.Recipients = []string{}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("the template is not the default:\ngot  %+v\nwant %+v", a, want)
	}
	// With every commented key switched on it must still be TOML that the
	// schema knows, and hold every key of the schema.
	var all []string
	for _, l := range strings.Split(src, "\n") {
		if rest, ok := strings.CutPrefix(l, "# "); ok && (strings.HasPrefix(rest, "[") || strings.Contains(rest, " = ")) {
			l = rest
		}
		all = append(all, l)
	}
	full := strings.Join(all, "\n")
	if _, err := Parse("appliance.toml", []byte(full)); err != nil {
		t.Errorf("%v\n%s", err, full)
	}
	for _, key := range schemaKeys(reflect.TypeFor[Appliance]()) {
		if !strings.Contains(full, "\n"+key+" ") {
			t.Errorf("the template lacks %q", key)
		}
	}
}

// schemaKeys are the names of all values in a table and those below it.
func schemaKeys(t reflect.Type) []string {
	var keys []string
	for f := range t.Fields() {
		ft := f.Type
		if ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			keys = append(keys, schemaKeys(ft)...)
		} else {
			keys = append(keys, f.Tag.Get("toml"))
		}
	}
	return keys
}

func TestLoadMissing(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error = %v", err)
	}
}

func TestIndexLines(t *testing.T) {
	const src = `# comment with [table]
a = """
[not.a.table]
x = 1 """" # a quote before the three
b = [ # list
  "]", '#',
  { c = 1 },
]
"quoted key" = 1
d . e = 2
[t."x.y"]
f = '''
''''
[[l]]
g = 1
[l.sub]
h = 2
[[l]]
g = "\""
[[l.m]]
i = {j = 1, k = "}"}
`
	if _, err := toml.Decode(src, new(map[string]any)); err != nil {
		t.Fatal(err)
	}
	got := indexLines(src)
	want := Lines{
		"a": 2, "b": 5, "quoted key": 9, "d": 10, "d.e": 10, "t": 11, "t.x.y": 11, "t.x.y.f": 12,
		"l": 14, "l[0]": 14, "l[0].g": 15, "l[0].sub": 16, "l[0].sub.h": 17,
		"l[1]": 18, "l[1].g": 19, "l[1].m": 20, "l[1].m[0]": 20, "l[1].m[0].i": 21,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for path, want := range map[string]int{"l[1].m[0].i.j": 21, "b[1]": 5, "nothing": 0, "l[0].missing": 14, "": 0} {
		if n := got.of(path); n != want {
			t.Errorf("line of %q = %d, want %d", path, n, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(string(ApplianceTemplate()))
	f.Add("a = \"\"\"\\\"\"\"\"\n[[b.c]]\n'd'.\"e\" = [{f=1}]\n")
	f.Add("[firewall]\nssh_from = 1\r\n# x")
	f.Fuzz(func(t *testing.T, src string) {
		a, err := Parse("f", []byte(src))
		n := strings.Count(src, "\n") + 1
		var faults Faults
		if errors.As(err, &faults) {
			for _, fault := range faults {
				if fault.Line < 0 || fault.Line > n {
					t.Fatalf("%v: line is not in a file of %d", fault, n)
				}
			}
		} else if err != nil {
			t.Fatalf("error of another type: %v", err)
		}
		_ = a.Validate("f", []byte(src))

		// Where the library accepts the file, each of its keys has a line.
		md, err := toml.Decode(src, new(map[string]any))
		if err != nil {
			return
		}
		at := indexLines(src)
		for _, k := range md.Keys() {
			if len(k) == 1 && !strings.ContainsAny(k[0], ".[") && at.of(join("", k[0])) == 0 && !underTable(md.Keys(), k) {
				t.Fatalf("no line for %q in %q: %v", k, src, at)
			}
		}
	})
}

// underTable says whether k is only the beginning of other keys.
func underTable(keys []toml.Key, k toml.Key) bool {
	for _, o := range keys {
		if len(o) > len(k) && o[0] == k[0] {
			return true
		}
	}
	return false
}
