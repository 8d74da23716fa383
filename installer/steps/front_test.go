package steps

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

func TestCertificateOfTheOperator(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	ownCertificate("vault.example.com", time.Hour)(v, e)
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	dropIns := map[string]string{
		machine.UnitFront:                "Wants=strongroom-front-certificate.service",
		machine.UnitFrontCertificate:     "LoadCredential=tls.key:/root/tls.key",
		machine.UnitFrontCertificatePath: "PathChanged=/root/tls.crt",
	}
	for unit, want := range dropIns {
		p := machine.DropInPath(unit, frontDropInName)
		if n := v.Files[p]; n == nil || !strings.Contains(string(n.Data), want) {
			t.Errorf("%s lacks %q: %+v", p, want, n)
		}
	}
	if text := string(v.Files[machine.FrontTOML].Data); !strings.Contains(text, machine.FrontPEM) || strings.Contains(text, "/root/tls.key") {
		t.Errorf("front.toml:\n%s", text)
	}
	if u := v.Units[machine.UnitFrontCertificatePath]; u.Active != "active" || u.Enabled != "enabled" {
		t.Errorf("nobody watches the files: %+v", u)
	}
	// Renewed: the unit that watches takes it over, the installer has nothing to do.
	ownCertificate("vault.example.com", 2*time.Hour)(v, e)
	if _, err := v.engine(e, &out).Plan(t.Context()); err != nil {
		t.Errorf("plan after a renewal: %v", err)
	}
	// Back to the internal authority: nothing of it is left.
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for unit := range dropIns {
		if v.Files[machine.DropInPath(unit, frontDropInName)] != nil {
			t.Errorf("the drop-in of %s is still there", unit)
		}
	}
	if u := v.Units[machine.UnitFrontCertificatePath]; u.Active == "active" || u.Enabled == "enabled" {
		t.Errorf("files are watched that the front no longer uses: %+v", u)
	}
}

// What [tls.acme] names reaches the front sealed, and nobody else.
func TestACMESecretsAreSealed(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	const canary = "canary-mac-key-canaries"
	v.Files["/root/eab.toml"] = &host.Node{Data: []byte("key_id = \"me\"\nmac_key = \"" + canary + "\"\n")}
	v.Files["/root/token"] = &host.Node{Data: []byte(canary + "\n")}
	ownCertificate("vault.example.com", time.Hour)(v, e)
	v.Files["/root/ca.pem"] = v.Files["/root/tls.crt"]
	e.Config.Email = "ops@example.com"
	e.Network = network{points: []netip.Addr{netip.MustParseAddr("203.0.113.5")}}
	e.Config.TLS = config.TLS{Mode: config.TLSACME, ACME: config.ACME{Directory: "https://ca.lan:9000/dir", CAFile: "/root/ca.pem",
		EAB: "/root/eab.toml", DNS: config.ACMEHetzner, DNSToken: "/root/token"}}
	e.Given = SealSecrets(&e.Config, "")
	if e.Config.TLS.ACME.EAB != machine.CredACMEEAB || e.Config.TLS.ACME.DNSToken != machine.CredACMEDNSToken {
		t.Fatalf("kept as %+v", e.Config.TLS.ACME)
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := string(v.Files[machine.FrontTOML].Data)
	for _, want := range []string{
		`eab_file = "/run/credentials/strongroom-front.service/acme-eab"`, `token_file = "/run/credentials/strongroom-front.service/acme-dns-token"`,
		`trusted_roots = ["/run/credentials/strongroom-front.service/acme-ca.crt"]`, `staging = ""`, `email = "ops@example.com"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("front.toml lacks %s:\n%s", want, text)
		}
	}
	dropIn := string(v.Files[machine.DropInPath(machine.UnitFront, frontDropInName)].Data)
	for _, want := range []string{"LoadCredential=acme-ca.crt:/root/ca.pem\n", "LoadCredentialEncrypted=acme-eab:" + machine.CredentialFile(machine.CredACMEEAB) + "\n"} {
		if !strings.Contains(dropIn, want) {
			t.Errorf("drop-in lacks %q:\n%s", want, dropIn)
		}
	}
	if !strings.Contains(string(v.Files[machine.NftablesConf].Data), "9000") {
		t.Error("the firewall keeps the front from the authority")
	}
	for p, n := range v.Files {
		if bytes.Contains(n.Data, []byte(canary)) && !strings.HasPrefix(p, "/root/") && !strings.HasPrefix(p, machine.CredentialDir) {
			t.Errorf("the secret is in %s", p)
		}
	}
	if strings.Contains(out.String(), canary) {
		t.Error("the secret is in the output")
	}
	for name, bad := range map[string]string{machine.CredACMEEAB: "key_id = \"" + canary + "\"\n", machine.CredACMEDNSToken: canary + " " + canary} {
		err := checkGiven(name, "/root/x", []byte(bad))
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}
