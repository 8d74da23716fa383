package doctor

import (
	"strconv"
	"strings"

	"strongroom.example/config/machine"
)

// account is a line of /etc/passwd, passwd(5).
type account struct {
	name     string
	uid, gid int
	home     string
	shell    string
}

// accounts are the machine's own users and groups.
type accounts struct {
	users  []account
	groups map[string]int
	// members are the additional groups of users by name.
	members map[string][]int
}

// people gives the machine's accounts. One that can't be read is noted once by
// whoever asked.
func (e *exam) people() (*accounts, bool) {
	if e.accounts != nil {
		return e.accounts, true
	}
	passwd, err := e.Machine.ReadFile("/etc/passwd")
	if err != nil {
		e.unseen("/etc/passwd", err)
		return nil, false
	}
	group, err := e.Machine.ReadFile("/etc/group")
	if err != nil {
		e.unseen("/etc/group", err)
		return nil, false
	}
	a := parseAccounts(string(passwd), string(group))
	// Every system has these: what names neither is not all of it.
	if a.name(0) != "root" {
		e.unseen("/etc/passwd", errNothing)
		return nil, false
	}
	if _, ok := a.groups["root"]; !ok {
		e.unseen("/etc/group", errNothing)
		return nil, false
	}
	e.accounts = a
	return e.accounts, true
}

// vaultUser gives them with Vault's; a machine without is at fault.
func (e *exam) vaultUser() (*accounts, account, bool) {
	a, ok := e.people()
	if !ok {
		return nil, account{}, false
	}
	u, ok := a.user(machine.UserVault)
	if !ok {
		e.fail(reinstall, "there is no user %q", machine.UserVault)
	}
	return a, u, ok
}

// parseAccounts passes over lines of another form, as getpwent does.
func parseAccounts(passwd, group string) *accounts {
	a := &accounts{groups: map[string]int{}, members: map[string][]int{}}
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 7 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil {
			continue
		}
		a.users = append(a.users, account{f[0], uid, gid, f[5], f[6]})
	}
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 4 {
			continue
		}
		gid, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		a.groups[f[0]] = gid
		for name := range strings.SplitSeq(f[3], ",") {
			if name != "" {
				a.members[name] = append(a.members[name], gid)
			}
		}
	}
	return a
}

func (a *accounts) user(name string) (account, bool) {
	for _, u := range a.users {
		if u.name == name {
			return u, true
		}
	}
	return account{}, false
}

// name is a user's name, or its number.
func (a *accounts) name(uid int) string {
	for _, u := range a.users {
		if u.uid == uid {
			return u.name
		}
	}
	return "uid " + strconv.Itoa(uid)
}

func (a *accounts) groupName(gid int) string {
	for name, id := range a.groups {
		if id == gid {
			return name
		}
	}
	return "gid " + strconv.Itoa(gid)
}

func (u account) canLogIn() bool {
	return u.shell != "" && !strings.HasSuffix(u.shell, "nologin") && !strings.HasSuffix(u.shell, "/false")
}
