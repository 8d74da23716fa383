package cli

import (
	"errors"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/steps"
)

// The end of an installation tells somebody who has never run a Vault how to go
// on, and fits a terminal of 80 columns.
func TestEndingTellsHowToGoOn(t *testing.T) {
	for name, c := range map[string]struct {
		tls       string
		changes   int
		silent    error
		want, not []string
	}{
		"a public certificate": {tls: config.TLSACME, changes: 3,
			want: []string{"export VAULT_ADDR=https://vault.example.com", "vault login -method=userpass username=admin", "scp -r root@vault.example.com:/var/lib/strongroom/escrow .", "strongroom escrow challenge"},
			not:  []string{"VAULT_CACERT", "curl"}},
		"an authority of its own": {tls: config.TLSInternal, changes: 3, want: []string{"/var/lib/strongroom-front/root.crt", "export VAULT_CACERT=", "Nobody could ask from outside", "curl -k https://vault.example.com/v1/sys/health"}},
		"no certificate yet": {tls: config.TLSACME, changes: 3, silent: errors.New("remote error: tls: internal error"),
			want: []string{"VAULT DOES NOT ANSWER", "tls: internal error", "journalctl -u strongroom-front"}, not: []string{"Vault answers"}},
		"nothing to change": {tls: config.TLSACME, not: []string{"Vault answers"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, out := given("", false)
			env := &steps.Env{Config: config.Default()}
			env.Config.Domain, env.Config.TLS.Mode = "vault.example.com", c.tls
			o.ending(env, engine.Result{Changes: c.changes}, steps.Diagnosis{Ran: true, EscrowOpen: true}, c.silent)
			for _, s := range c.want {
				if !strings.Contains(out.String(), s) {
					t.Errorf("no %q in:\n%s", s, out)
				}
			}
			for _, s := range c.not {
				if strings.Contains(out.String(), s) {
					t.Errorf("%q in:\n%s", s, out)
				}
			}
			for line := range strings.Lines(out.String()) {
				if len(strings.TrimRight(line, "\n")) > 80 {
					t.Errorf("wider than 80 columns: %q", line)
				}
			}
		})
	}
}
