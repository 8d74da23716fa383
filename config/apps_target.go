package config

import (
	"fmt"
	"slices"
)

// Target is an environment with all defaults filled in and everything named:
// the unit that has a path, a policy and a login of its own.
type Target struct {
	App         string
	Environment string // empty for an app without environments
	Description string
	Prefix      string // {app}/{environment}, below secret/ and the engines' paths
	Role        string // the AppRole's name
	Policy      string
	Secrets     []string
	Grants      []string
	Login       Login
	Databases   []DatabaseRole
	Keys        []Key

	field string // where it is in the file
}

// OwnerPolicy is the name of the policy of the people who own an app.
func OwnerPolicy(app string) string { return app + "-owner" }

// RenewPolicy is the name of the policy by which the holder of a login renews it.
func RenewPolicy(role string) string { return role + "-renew" }

// SelfPolicy is the name of the policy by which the people of a userpass method
// change their own passwords.
func SelfPolicy(mount string) string { return mount + "-self" }

// Targets are all environments of all apps, in the file's order.
func (a Apps) Targets() []Target {
	var out []Target
	for i := range a.Apps {
		out = append(out, a.targetsOf(i)...)
	}
	return out
}

// targetsOf are the environments of the app that comes at i.
func (a Apps) targetsOf(i int) []Target {
	app, at := a.Apps[i], fmt.Sprintf("app[%d]", i)
	login := app.Login.over(defaultLogin)
	if len(app.Environments) == 0 {
		return []Target{{
			App: app.Name, Description: app.Description, Prefix: app.Name, Role: app.Name, Policy: orName(app.Policy, app.Name),
			Secrets: app.Secrets, Grants: app.Grants, Login: login.canonical(), Keys: app.Keys, Databases: named(app.Name, app.Databases), field: at,
		}}
	}
	var out []Target
	for j, e := range app.Environments {
		name := app.Name + "-" + e.Name
		out = append(out, Target{
			App: app.Name, Environment: e.Name, Description: app.Description, Prefix: app.Name + "/" + e.Name,
			Role: name, Policy: orName(e.Policy, name), Secrets: e.Secrets, Grants: e.Grants, Login: e.Login.over(login).canonical(),
			Keys: e.Keys, Databases: named(name, e.Databases), field: fmt.Sprintf("%s.environment[%d]", at, j),
		})
	}
	return out
}

// canonical is l with its ranges as Vault keeps them; what is none stays, for the
// check to name.
func (l Login) canonical() Login {
	l.CIDRs = slices.Clone(l.CIDRs)
	for i, s := range l.CIDRs {
		if r, err := addressRange(s); err == nil {
			l.CIDRs[i] = r
		}
	}
	return l
}

// Database finds a connection by its name.
func (a Apps) Database(name string) (Database, bool) {
	for _, d := range a.Databases {
		if d.Name == name {
			return d, true
		}
	}
	return Database{}, false
}

func named(target string, roles []DatabaseRole) []DatabaseRole {
	out := make([]DatabaseRole, len(roles))
	for i, r := range roles {
		out[i] = r.withDefaults(target)
	}
	return out
}

func orName(s, name string) string {
	if s == "" {
		return name
	}
	return s
}
