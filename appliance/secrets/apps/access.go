package apps

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl"

	"strongroom.example/appliance/base/vaultapi"
)

// Holder is somebody who can log in, or a group of people, with the policies that
// Vault gives him. It is as Vault has it, whatever a file says.
type Holder struct {
	Kind     string   `json:"kind"` // app, person, group, pod or role
	Name     string   `json:"name"` // METHOD/NAME
	Policies []string `json:"policies"`
}

// Rule is one path of one policy.
type Rule struct {
	Policy       string   `json:"policy"`
	Path         string   `json:"path"`
	Capabilities []string `json:"capabilities"`
}

// Right is what a holder may do at a path, as Vault says it, and the rules that speak
// of the path.
type Right struct {
	Holder
	Capabilities []string `json:"capabilities"`
	Rules        []Rule   `json:"rules"`
}

// methodFolders are the folders of each kind of auth method in which logins lie, with
// what a login there is of.
var methodFolders = map[string]map[string]string{
	"approle": {"role": "app"}, "userpass": {"users": "person"}, "ldap": {"users": "person", "groups": "group"},
	"oidc": {"role": "group"}, "jwt": {"role": "group"}, "kubernetes": {"role": "pod"}, "cert": {"certs": "role"}, "okta": {"users": "person", "groups": "group"},
	"radius": {"users": "person"}, "github": {"map/teams": "group", "map/users": "person"},
}

// Holders gives everybody who can log in. Unseen are the methods whose logins this
// version can't list.
func Holders(ctx context.Context, v Vault) (holders []Holder, unseen []string, err error) {
	methods, err := v.Read(ctx, "sys/auth")
	if err != nil {
		return nil, nil, err
	}
	for _, mount := range sortedKeys(methods) {
		kind := text(mapOf(methods[mount]), "type")
		mount = strings.TrimSuffix(mount, "/")
		if kind == "token" {
			continue
		}
		folders, known := methodFolders[kind]
		if !known {
			unseen = append(unseen, mount)
			continue
		}
		// What a directory's configuration gives, everybody gets.
		config, err := v.Read(ctx, "auth/"+mount+"/config")
		if err != nil && !vaultapi.IsUnsupported(err) {
			return nil, nil, err
		}
		all := policiesIn(config)
		for _, folder := range sortedKeys(folders) {
			found, err := holdersIn(ctx, v, mount, folder, folders[folder], all)
			if err != nil {
				return nil, nil, err
			}
			holders = append(holders, found...)
		}
	}
	for _, of := range []struct{ folder, kind string }{{"identity/entity/id", "person"}, {"identity/group/id", "group"}} {
		found, err := identities(ctx, v, of.folder, of.kind)
		if err != nil {
			return nil, nil, err
		}
		holders = append(holders, found...)
	}
	return holders, unseen, nil
}

func policiesIn(got map[string]any) []string {
	out := append(stringsOf(got["token_policies"]), stringsOf(got["policies"])...)
	if s := text(got, "policies"); s != "" {
		out = append(out, strings.Split(s, ",")...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func holdersIn(ctx context.Context, v Vault, mount, folder, kind string, more []string) ([]Holder, error) {
	base := "auth/" + mount + "/" + folder
	names, err := v.List(ctx, base)
	if err != nil {
		return nil, err
	}
	out := make([]Holder, len(names))
	err = each(ctx, len(names), func(ctx context.Context, i int) error {
		got, err := v.Read(ctx, base+"/"+names[i])
		p := append(policiesIn(got), more...)
		slices.Sort(p)
		out[i] = Holder{Kind: kind, Name: mount + "/" + names[i], Policies: slices.Compact(p)}
		return err
	})
	return out, err
}

// identities are the people and groups to whom Vault's identity gives policies beside
// those of their logins.
func identities(ctx context.Context, v Vault, folder, kind string) ([]Holder, error) {
	ids, err := v.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	all := make([]Holder, len(ids))
	err = each(ctx, len(ids), func(ctx context.Context, i int) error {
		got, err := v.Read(ctx, folder+"/"+ids[i])
		if p := policiesIn(got); len(p) > 0 {
			all[i] = Holder{Kind: kind, Name: "identity/" + orElse(text(got, "name"), ids[i]), Policies: p}
		}
		return err
	})
	return slices.DeleteFunc(all, func(h Holder) bool { return h.Name == "" }), err
}

// Of gives who may do something at a path. Vault itself is asked, with a token of just
// the policies of each login, which ends at once.
func Of(ctx context.Context, c *vaultapi.Client, holders []Holder, path string) ([]Right, error) {
	v := New(c)
	rules := map[string][]Rule{}
	may := map[string][]string{}
	var out []Right
	for _, h := range holders {
		key := strings.Join(h.Policies, ",")
		if _, asked := may[key]; !asked {
			var err error
			if may[key], err = capabilities(ctx, c, h.Policies, path); err != nil {
				return nil, fmt.Errorf("what %s may: %w", h.Name, err)
			}
		}
		if slices.Equal(may[key], []string{"deny"}) {
			continue
		}
		r := Right{Holder: h, Capabilities: may[key], Rules: []Rule{}}
		for _, p := range append(slices.Clone(h.Policies), "default") {
			if _, read := rules[p]; !read {
				all, err := RulesOf(ctx, v, p)
				if err != nil {
					return nil, err
				}
				rules[p] = all
			}
			for _, rule := range rules[p] {
				if rule.matches(path) {
					r.Rules = append(r.Rules, rule)
				}
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func capabilities(ctx context.Context, c *vaultapi.Client, policies []string, path string) ([]string, error) {
	if slices.Contains(policies, "root") {
		return []string{"root"}, nil
	}
	if len(policies) == 0 {
		policies = []string{"default"}
	}
	token, err := c.ChildToken(ctx, "strongroom-access", time.Minute, policies...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.As(token).RevokeSelf(context.WithoutCancel(ctx)) }() // it ends by itself, too
	got, err := c.Write(ctx, "sys/capabilities", map[string]any{"token": token, "paths": []string{path}})
	if err != nil {
		return nil, err
	}
	out, err := got.Strings(path)
	slices.Sort(out)
	return out, err
}

// RulesOf are the paths of a policy as its text has them, for a person to read.
func RulesOf(ctx context.Context, v Vault, policy string) ([]Rule, error) {
	got, err := v.Read(ctx, "sys/policies/acl/"+policy)
	if err != nil {
		return nil, err
	}
	return rulesIn(policy, text(got, "policy"))
}

func rulesIn(policy, hclText string) ([]Rule, error) {
	var p struct {
		Path map[string]struct {
			Capabilities []string `hcl:"capabilities"`
			Policy       string   `hcl:"policy"` // the old word for some of them
		} `hcl:"path"`
	}
	if err := hcl.Decode(&p, hclText); err != nil {
		return nil, fmt.Errorf("policy %q can't be read: %w", policy, err)
	}
	var out []Rule
	for _, path := range sortedKeys(p.Path) {
		r := Rule{Policy: policy, Path: path, Capabilities: append([]string{}, p.Path[path].Capabilities...)}
		if old := p.Path[path].Policy; old != "" {
			r.Capabilities = append(r.Capabilities, "policy "+old)
		}
		out = append(out, r)
	}
	return out, nil
}

// wonAndLost are the rights that a policy's new text gives and takes, one a path;
// none where they are the same.
func wonAndLost(from, to string) []Field {
	may := func(text string) map[string]string {
		rules, err := rulesIn("", text)
		if err != nil {
			return nil // somebody's own words; the change is shown as one of the text
		}
		out := map[string]string{}
		for _, r := range rules {
			c := slices.Clone(r.Capabilities)
			slices.Sort(c)
			out[r.Path] = strings.Join(c, ", ")
		}
		return out
	}
	was, is := may(from), may(to)
	paths := map[string]bool{}
	for _, m := range []map[string]string{was, is} {
		for p := range m {
			paths[p] = true
		}
	}
	var out []Field
	for _, p := range sortedKeys(paths) {
		if was[p] != is[p] {
			out = append(out, Field{Name: p, From: was[p], To: is[p]})
		}
	}
	return out
}

// matches tells whether a rule speaks of a path: "+" is one part, "*" at the end is
// anything. https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
func (r Rule) matches(path string) bool {
	pattern, glob := strings.CutSuffix(r.Path, "*")
	parts := strings.Split(pattern, "/")
	given := strings.Split(path, "/")
	if len(given) < len(parts) || !glob && len(given) != len(parts) {
		return false
	}
	for i, p := range parts {
		last := i == len(parts)-1
		switch {
		case p == "+":
		case last && glob:
			if !strings.HasPrefix(strings.Join(given[i:], "/"), p) {
				return false
			}
		case p != given[i]:
			return false
		}
	}
	return true
}

// By gives the holders of a name: "approle/a-e", or "a-e" wherever it is.
func By(holders []Holder, name string) []Holder {
	var out []Holder
	for _, h := range holders {
		if _, short, _ := strings.Cut(h.Name, "/"); h.Name == name || short == name {
			out = append(out, h)
		}
	}
	return out
}
