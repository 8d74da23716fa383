package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/operation"
	"strongroom.example/config"
	"strongroom.example/installer/steps"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ask fills what neither file nor flags say, where there is someone to ask.
func (o *options) ask(ctx context.Context, cfg *config.Appliance) error {
	if !o.terminal || o.yes {
		return nil
	}
	for _, q := range []struct {
		text   string
		into   *string
		wanted bool
	}{
		{"Domain, such as vault.example.com: ", &cfg.Domain, true},
		{"E-mail address for the certificate authority: ", &cfg.Email, cfg.TLS.Mode == config.TLSACME},
	} {
		if *q.into != "" || !q.wanted {
			continue
		}
		answer, err := o.line(ctx, q.text, 10*time.Minute)
		if err != nil {
			return &fault.Error{Code: fault.Usage, Err: err, Hint: "nothing has been changed"}
		}
		*q.into = answer
	}
	return nil
}

func (o *options) askYes(ctx context.Context, text string, within time.Duration) error {
	answer, err := o.line(ctx, text, within)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return fmt.Errorf("the answer was %q, not \"yes\"", answer)
	}
	return nil
}

// line asks for one line. The reader is left behind when time is up; the
// program ends soon after.
func (o *options) line(ctx context.Context, text string, within time.Duration) (string, error) {
	fmt.Fprint(o.out, text)
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		s, err := bufio.NewReader(o.in).ReadString('\n')
		got <- result{strings.TrimSpace(s), err}
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case r := <-got:
		return r.text, r.err
	case <-timer.C:
		return "", fmt.Errorf("no answer within %v", within)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// confirmFirewall is the proof that new rules don't lock the operator out. A
// person opens a second connection and says so. Without one, what can be known
// is known from the rules and this session.
func (o *options) confirmFirewall(ctx context.Context, w config.Firewall, within time.Duration) error {
	if !o.yes {
		fmt.Fprintf(o.out, "  New firewall rules are in force, and are taken back in %v. Open a second SSH\n  connection to this machine now.\n", within)
		return o.askYes(ctx, "  Type yes if it works: ", within-5*time.Second)
	}
	return letsIn(w, sshSession(), os.Getenv("SUDO_USER"), steps.OSNetwork{Resolver: net.DefaultResolver})
}

// letsIn says whether the rules let the SSH session in that session describes
// (ssh(1): client's address and port, server's address and port), or, without
// one, whether sshd listens where they let anybody in. sudoUser is who called
// sudo, "" for nobody: whoever did has a session somewhere, so that rules which
// let only some in are not taken on trust.
func letsIn(w config.Firewall, session, sudoUser string, network steps.Network) error {
	f := strings.Fields(session)
	if len(f) == 0 {
		if sudoUser != "" && !fromEveryone(w) {
			return fmt.Errorf("where %s comes from is not known, and the rules let SSH in from %s only; run it without --yes, or with sudo --preserve-env=SSH_CONNECTION",
				sudoUser, strings.Join(w.SSHFrom, ", "))
		}
		taken, err := network.Taken("tcp", w.SSHPort)
		if err != nil {
			return err
		}
		if !taken {
			return fmt.Errorf("nothing listens on port %d, where the rules let SSH in", w.SSHPort)
		}
		return nil
	}
	if len(f) != 4 {
		return fmt.Errorf("SSH_CONNECTION %q is not of the form that sshd gives it", session)
	}
	client, err := netip.ParseAddr(f[0])
	if err != nil {
		return fmt.Errorf("SSH_CONNECTION %q: %w", session, err)
	}
	if port, err := strconv.Atoi(f[3]); err != nil || port != w.SSHPort {
		return fmt.Errorf("this session came in by port %s, and the rules let SSH in at %d", f[3], w.SSHPort)
	}
	for _, s := range w.SSHFrom {
		if p, err := netip.ParsePrefix(s); err == nil && p.Contains(client.Unmap()) {
			return nil
		}
	}
	return fmt.Errorf("this session comes from %s, and the rules let SSH in from %s only", client, strings.Join(w.SSHFrom, ", "))
}

// begin holds the machine for a verb: who else would change it waits.
func begin(path, verb string) (end func(), err error) {
	end, err = operation.Begin(path, program+" "+verb, time.Now())
	if errors.Is(err, operation.ErrBusy) {
		return nil, &fault.Error{Code: fault.Failed, Err: err, Hint: "wait for its end"}
	}
	return end, err
}
