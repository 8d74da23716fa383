package demo

import (
	"fmt"
	"os/exec"
	"strings"

	"strongroom.example/appliance/base/proc"
)

// ending is the last word of a demo that does not stay.
func (r *run) ending() string {
	var b strings.Builder
	b.WriteString(r.memory())
	if r.o.Keep {
		fmt.Fprintf(&b, "  Kept in %s: configuration, storage, audit and other logs, escrow, snapshot.\n", r.o.Dir)
		b.WriteString(r.keptKeys())
	} else {
		b.WriteString("  Everything of it is removed now: processes, sockets, files.\n")
	}
	b.WriteString("  To have one that stays until Ctrl-C, and to try it by hand:  bin/strongroom demo\n")
	b.WriteString(example)
	return b.String()
}

// example is where a pipeline developer goes on.
const example = "  A Dagster project that reads its secrets from it:  python/examples/bike_data_flow\n"

// howToUse tells what a person does with what runs.
func (r *run) howToUse() string {
	l := r.vault.Layout
	var b strings.Builder
	b.WriteString(r.memory())
	fmt.Fprintf(&b, `  It runs until Ctrl-C. In another terminal:

    export VAULT_ADDR=https://%s VAULT_CACERT=%s
%s    vault login -method=userpass username=%s      # password: %s

    vault read  apikeys/creds/%s
    vault write -f apikeys/rotate/%s
    vault read  apikeys/status
    vault kv put secret/demo/production/database-url value=postgresql://…

  Logs: %s
%s`, r.o.Listen, l.FrontRoot(), r.alias(), userName, r.userPassword, keyName, keyName, l.Log("*"), example)
	if r.o.Keep {
		b.WriteString(r.keptKeys())
	} else {
		b.WriteString("  Ctrl-C, or SIGTERM, ends it and removes everything.\n")
	}
	return b.String()
}

// alias makes the commands work where vault is not in the path.
func (r *run) alias() string {
	if _, err := exec.LookPath("vault"); err == nil {
		return ""
	}
	return "    alias vault=" + r.o.Programs.Vault + "\n"
}

func (r *run) keptKeys() string {
	if len(r.o.Recipients) > 0 {
		return "  The escrow and the snapshot open with the keys given as --recipient.\n"
	}
	return "  Escrow and snapshot were encrypted to a key that ends with the demo: what is kept can be looked\n" +
		"  at, and not started again. For that give your public key: --recipient ~/.ssh/id_ed25519.pub\n"
}

// memory is the resident memory of each process.
func (r *run) memory() string {
	parts := []string{}
	for _, p := range []struct {
		name string
		pid  int
	}{
		{"kms", r.vault.KMS.PID()},
		{"front", r.front.PID()},
		{"vault", r.vault.Process.PID()},
		{"plugin", proc.ChildOf(r.vault.Process.PID())},
	} {
		if mib, err := proc.Resident(p.pid); err == nil {
			parts = append(parts, fmt.Sprintf("%s %d MiB", p.name, mib>>20))
		}
	}
	return "  resident memory: " + strings.Join(parts, ", ") + "\n\n"
}
