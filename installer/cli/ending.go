package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/recover"
	"strongroom.example/installer/steps"
	"strongroom.example/installer/upgrade"
)

// install asks, runs the steps under a lock and with a journal, and has the
// doctor look at the result.
func (o *options) install(ctx context.Context, env *steps.Env) error {
	if err := o.askToInstall(ctx, env); err != nil {
		return err
	}
	end, err := begin(machine.OperationLock, "install")
	if err != nil {
		return err
	}
	defer end()
	if err := upgrade.Unfinished(env.Host); err != nil {
		return err
	}
	if err := recover.Unfinished(env.Host); err != nil {
		return err
	}
	if err := steps.OtherVersion(env.Host, env.Version); err != nil {
		return err
	}
	j, err := engine.OpenJournal(machine.InstallJournal, o.version, time.Now)
	if err != nil {
		return err
	}
	defer j.Close()
	env.Journal = j
	e := engine.Engine{Steps: steps.All(env), Out: o.out, Journal: j, Now: time.Now}
	res, err := e.Install(ctx)
	if err != nil {
		return err
	}
	if err := steps.Ended(ctx, env.Host); err != nil {
		return err
	}
	diagnosis, err := steps.DiagnoseIf(ctx, env, res.Changes > 0)
	if err != nil {
		return err
	}
	o.ending(env, res, diagnosis, asked(ctx, env, res))
	return diagnosis.Err()
}

// asked is nil where the front answers for Vault on this machine, or nothing was changed.
func asked(ctx context.Context, env *steps.Env, res engine.Result) error {
	if res.Changes == 0 {
		return nil
	}
	return answersSoon(ctx, upgrade.FrontAt(env.Config.Domain, "127.0.0.1:443"))
}

// frontPatience is how long the front may take to its first certificate.
const frontPatience = 20 * time.Second

// answersSoon asks until it is answered, for a while.
func answersSoon(ctx context.Context, front func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, frontPatience)
	defer cancel()
	for {
		err := front(ctx)
		if err == nil || pause.For(ctx, time.Second) != nil {
			return err
		}
	}
}

// answers says what is known of whether Vault is reached: this machine's own question goes
// over loopback, past its firewall and whatever stands before it.
func (o *options) answers(env *steps.Env, silent error) {
	at := "https://" + env.Config.Domain
	if silent != nil {
		fmt.Fprintf(o.out, "\n!! VAULT DOES NOT ANSWER at %s, asked on this machine:\n   %v\n   See: journalctl -u %s -n 20; strongroom status\n", at, silent, machine.UnitFront)
		return
	}
	if acme := env.Config.TLS.ACME; env.Config.TLS.Mode == config.TLSACME && acme.DNS == "" && acme.Directory == "" {
		fmt.Fprintf(o.out, "\nVault answers at %s.\nThe certificate authority has reached this machine from outside.\n", at)
		return
	}
	fmt.Fprintf(o.out, "\nVault answers at %s,\nasked on this machine. Nobody could ask from outside; from your computer, say:\n  curl -k %s/v1/sys/health\n", at, at)
}

func (o *options) askToInstall(ctx context.Context, env *steps.Env) error {
	if o.yes {
		return nil
	}
	if !o.terminal {
		return &fault.Error{Code: fault.Usage, Err: errors.New("nobody can be asked here"), Hint: "say --yes"}
	}
	fmt.Fprintf(o.out, "Installing Vault at https://%s on this machine;\n%s can open the escrow.\n", env.Config.Domain, words.Count(len(env.Recipients), "key"))
	if err := o.askYes(ctx, "Type yes to go on: ", 10*time.Minute); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "nothing has been changed"}
	}
	return nil
}

// ending says what the operator must know and do now. After a run that has
// changed nothing that is only what is still wrong.
func (o *options) ending(env *steps.Env, res engine.Result, d steps.Diagnosis, silent error) {
	if res.Changes > 0 {
		o.answers(env, silent)
	}
	for _, n := range env.Notes {
		fmt.Fprintln(o.out, "note:", n)
	}
	if len(d.Failures) > 0 {
		fmt.Fprintf(o.out, "\nThe doctor finds faults in %d of its items:\n", len(d.Failures))
		for _, f := range d.Failures {
			fmt.Fprintf(o.out, "  ✗ %s\n", f)
		}
	}
	if len(env.Config.Backup.To) == 0 {
		fmt.Fprintf(o.out, `
!! THERE IS NO BACKUP. When this machine or its disk is lost, everything in
   Vault is lost. Add a place for backups to %[1]s, say
     [[backup.to]]
     type     = "s3"
     endpoint = "https://fsn1.your-objectstorage.com"
     bucket   = "vault-backups"
   in a copy of it, and run:
     %[2]s install --config COPY --backup-credentials FILE
`, machine.ConfigFile, program)
	}
	if d.EscrowOpen || res.Changes > 0 && !d.Ran {
		fmt.Fprintf(o.out, `
!! THE ESCROW IS ON THIS DISK ONLY, as far as anybody has proved. It holds the
   only way back when the machine is lost. Copy it off now:
     scp -r root@%[1]s:%[2]s .
   see that it opens with your own key; the last line is the password of admin:
     age -d -i ~/.ssh/id_ed25519 escrow/admin.age
   and prove it to this machine, or the doctor goes on to complain:
     strongroom escrow challenge        (here; it says what to run elsewhere)
     strongroom escrow confirm          (here, with the answers)
`, env.Config.Domain, machine.EscrowDir)
		o.howToLogIn(env)
		fmt.Fprintf(o.out, "\nThe pages that hints name as docs/… are in %s.\n", machine.DocDir)
	}
	o.plainFiles(env)
}

// howToLogIn is for somebody who has just got his first Vault, on his own
// computer.
func (o *options) howToLogIn(env *steps.Env) {
	fmt.Fprintf(o.out, "\nThen log in from your computer, as admin with that password:\n")
	if env.Config.TLS.Mode == config.TLSInternal {
		fmt.Fprintf(o.out, "  scp root@%s:/var/lib/strongroom-front/root.crt .\n  export VAULT_CACERT=$PWD/root.crt\n", env.Config.Domain)
	}
	fmt.Fprintf(o.out, "  export VAULT_ADDR=https://%s\n  vault login -method=userpass username=admin\n", env.Config.Domain)
}

// plainFiles names the files of secrets that are sealed by now.
func (o *options) plainFiles(env *steps.Env) {
	var left []string
	for _, name := range slices.Sorted(maps.Keys(env.Given)) {
		file := env.Given[name]
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) && !slices.Contains(left, file) {
			left = append(left, file)
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(o.out, "\nSealed for this machine, so the plain file can be deleted: %s\n", strings.Join(left, " "))
	}
}
