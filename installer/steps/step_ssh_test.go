package steps

import (
	"bytes"
	"io/fs"
	"path"
	"strings"
	"testing"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

func TestSSHByKeyOnlyWhereItLocksNobodyOut(t *testing.T) {
	const (
		locked   = "root:*:19000:0:99999:7:::\nops:!$6$x:19000::::::\ndaemon:!:1::::::\n"
		password = "root:$y$j9T$abc:19000:0:99999:7:::\n"
		session  = "203.0.113.9 40022 203.0.113.5 22"
		yes      = "port 22\npasswordauthentication yes\nkbdinteractiveauthentication no\n"
	)
	for name, c := range map[string]struct {
		shadow, sshd, session, journal string
		none, refuses                  bool
		written                        bool
		fault                          string
		overruled                      bool // by a file before ours
	}{
		"nobody has a password":         {shadow: locked, sshd: yes, written: true},
		"no passwords already":          {shadow: locked, sshd: "port 22\npasswordauthentication no\nkbdinteractiveauthentication no\n"},
		"a password, came by key":       {shadow: password, sshd: yes, session: session, journal: "Accepted publickey for root from 203.0.113.9 port 40022 ssh2: ED25519 SHA256:x\n", written: true},
		"a password, came by password":  {shadow: password, sshd: yes, session: session, journal: "Accepted password for root from 203.0.113.9 port 40022 ssh2\n"},
		"a password, another's key":     {shadow: password, sshd: yes, session: session, journal: "Accepted publickey for root from 203.0.113.9 port 4002 ssh2\n"},
		"a password, no session":        {shadow: password, sshd: yes, journal: "Accepted publickey for root from 203.0.113.9 port 40022 ssh2\n"},
		"no sshd":                       {shadow: locked, none: true},
		"sshd refuses what was written": {shadow: locked, sshd: yes, refuses: true, fault: "sshd refuses"},
		"key and code":                  {shadow: locked, sshd: yes + "authenticationmethods publickey,keyboard-interactive\n"},
		"code alone":                    {shadow: locked, sshd: yes + "authenticationmethods keyboard-interactive:pam\n"},
		"any method":                    {shadow: locked, sshd: yes + "authenticationmethods any\n", written: true},
		"key asked for":                 {shadow: locked, sshd: yes + "authenticationmethods publickey\n", written: true},
		"another file overrules it":     {shadow: locked, sshd: yes, overruled: true, written: true, fault: "still takes passwords"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			v.sshd()
			v.Files["/etc/shadow"] = &host.Node{Data: []byte(c.shadow)}
			if !c.none {
				v.Commands["sshd"] = func(cmd host.Command, _ []byte) (host.Output, error) {
					if cmd.Args[1] == "-t" && c.refuses {
						return host.Output{}, &host.ExitError{Command: "sshd -t", Code: 255, Stderr: "bad"}
					}
					if v.Files["/run/sshd"] == nil {
						return host.Output{}, &host.ExitError{Command: "sshd", Code: 255, Stderr: "Missing privilege separation directory: /run/sshd"}
					}
					if v.Files[machine.SSHDFile] != nil && !c.overruled {
						return host.Output{Stdout: []byte(strings.ReplaceAll(c.sshd, "authentication yes", "authentication no"))}, nil
					}
					return host.Output{Stdout: []byte(c.sshd)}, nil
				}
			}
			v.Commands["journalctl"] = answer(c.journal)
			e := v.env()
			e.Session = c.session
			var out bytes.Buffer
			_, err := (&engine.Engine{Steps: []engine.Step{ssh{e}}, Out: &out, Now: e.Host.Now}).Install(t.Context())
			if (err != nil) != (c.fault != "") || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Fatalf("error = %v", err)
			}
			_, written := v.Files[machine.SSHDFile]
			if written != c.written {
				t.Errorf("written = %v\n%s", written, out.String())
			}
			if diff, err := (ssh{e}).Check(t.Context()); err != nil || c.fault == "" && len(diff) > 0 {
				t.Errorf("afterwards: %v %v", diff, err)
			}
		})
	}
}

// sshd is an SSH server that runs since a while.
func (v *vps) sshd() {
	for _, d := range []string{"/etc/ssh", path.Dir(machine.SSHDFile), "/run"} {
		v.Files[d] = &host.Node{Info: host.Info{Attr: root(0o755), Type: fs.ModeDir}}
	}
	v.Units["ssh.service"] = &host.Unit{Load: "loaded", Active: "active", Since: v.Clock, Changed: v.Clock}
}

// TestSSHIsReloadedAfterAKill kills the step at each of its actions: whatever
// the file says afterwards, the next run has sshd do.
func TestSSHIsReloadedAfterAKill(t *testing.T) {
	for at := 1; ; at++ {
		v := newVPS(t)
		v.sshd()
		inForce := false // what the running sshd has read
		v.Commands["sshd"] = func(host.Command, []byte) (host.Output, error) {
			if v.Files[machine.SSHDFile] != nil {
				return host.Output{Stdout: []byte("passwordauthentication no\n")}, nil
			}
			return host.Output{Stdout: []byte("passwordauthentication yes\n")}, nil
		}
		e := v.env()
		install := func() error {
			_, err := (&engine.Engine{Steps: []engine.Step{ssh{e}}, Out: new(bytes.Buffer), Now: e.Host.Now}).Install(t.Context())
			inForce = v.Files[machine.SSHDFile] != nil && v.Units["ssh.service"].Changed.After(v.Files[machine.SSHDFile].ModTime)
			return err
		}
		v.FailAt = at
		if err := install(); err == nil {
			if at < 4 {
				t.Errorf("%d actions", at-1)
			}
			return
		}
		v.FailAt = 0
		if err := install(); err != nil || !inForce {
			t.Errorf("killed at %d: in force %v, %v", at, inForce, err)
		}
		if diff, err := (ssh{e}).Check(t.Context()); err != nil || len(diff) > 0 {
			t.Errorf("killed at %d, afterwards: %v %v", at, diff, err)
		}
	}
}
