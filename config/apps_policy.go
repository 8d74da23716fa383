package config

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

//go:embed policies/app-read.hcl.tmpl
var appReadTemplate string

//go:embed policies/app-renew.hcl.tmpl
var appRenewTemplate string

//go:embed policies/app-owner.hcl.tmpl
var appOwnerTemplate string

// The policies of people beside PolicyAdmin.
const (
	PolicyOperator = "strongroom-operator" // looks at everything, rotates, revokes; reads no secret
	PolicyReader   = "strongroom-reader"   // looks at everything that is no secret
)

// PolicyMark is the first line of a generated policy: who owns it. Vault keeps
// a policy's text as it is.
func PolicyMark(manifest, app string) string {
	return fmt.Sprintf("# strongroom manifest=%s app=%s", manifest, app)
}

// ParsePolicyMark reads the mark of a policy; ok is false for one that no
// manifest has made.
func ParsePolicyMark(text string) (manifest, app string, ok bool) {
	line, _, _ := strings.Cut(text, "\n")
	rest, ok := strings.CutPrefix(line, "# strongroom manifest=")
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, " app=")
}

// ReadPolicy is the policy of an environment's own login.
func (a Apps) ReadPolicy(t Target) string {
	dynamic, static := roleNames(t.Databases)
	return render(appReadTemplate, map[string]any{
		"Manifest": a.Manifest, "App": t.App, "Prefix": t.Prefix, "Grants": t.Grants,
		"Reads": append([]string{t.Prefix}, t.Grants...), "Dynamic": dynamic, "Static": static,
	})
}

// RenewPolicyText is the policy by which an environment's machine renews its login.
func (a Apps) RenewPolicyText(t Target) string {
	return render(appRenewTemplate, map[string]any{"Manifest": a.Manifest, "App": t.App, "Role": t.Role})
}

// OwnerPolicyText is the policy of the people who own an app.
func (a Apps) OwnerPolicyText(app string) string {
	var targets []Target
	var connections []string
	for i := range a.Apps {
		if a.Apps[i].Name == app {
			targets = append(targets, a.targetsOf(i)...)
		}
	}
	for _, t := range targets {
		for _, r := range t.Databases {
			connections = append(connections, r.Database)
		}
	}
	slices.Sort(connections)
	return render(appOwnerTemplate, map[string]any{
		"Manifest": a.Manifest, "App": app, "OwnerPolicy": OwnerPolicy(app), "Targets": targets,
		"Connections": slices.Compact(connections),
	})
}

func roleNames(roles []DatabaseRole) (dynamic, static []string) {
	for _, r := range roles {
		if r.Access == AccessStatic {
			static = append(static, r.Name)
		} else {
			dynamic = append(dynamic, r.Name)
		}
	}
	return dynamic, static
}

// render fills in names that checkLabel and checkSecretName have let pass;
// nothing in them has a meaning in a policy.
func render(text string, data any) string {
	var b strings.Builder
	if err := template.Must(template.New("").Parse(text)).Execute(&b, data); err != nil {
		panic(fmt.Sprintf("config: an embedded policy can't be filled in: %v", err))
	}
	return b.String()
}
