package front

import (
	"net/http"
	"slices"
	"strings"
)

// rule is one entry of the allow-list for sys/. A path that ends in "/*"
// stands for everything below it, at least one segment; any other path stands
// for itself, and with a slash at its end where it can be listed.
type rule struct {
	path    string // below /v1/sys/
	class   *class
	methods []string
	why     string // who needs it from outside the machine
}

var (
	read  = []string{http.MethodGet}
	look  = []string{http.MethodGet, http.MethodHead}
	write = []string{http.MethodPost, http.MethodPut}
	list  = []string{http.MethodGet, methodList}
	all   = []string{http.MethodGet, methodList, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
)

// allowed is everything of sys/ that passes from outside. Whatever is not here
// is answered on the machine itself only, over Vault's unix socket: init,
// unseal, seal, rekey, generate-root, raw, raft, snapshots, plugins, audit …
// The path names are those of Vault 1.21 (http/handler.go and
// vault/logical_system_paths.go) and of https://developer.hashicorp.com/vault/api-docs/system.
var allowed = []rule{
	{"health", open, look, "monitoring and load balancers; no token, nothing secret"},
	{"seal-status", open, read, "`vault status` and the UI's first page; version and cluster name are redacted by the listener"},
	{"leader", open, read, "`vault status` and clients that look for the active node; addresses are redacted by the listener"},

	{"wrapping/wrap", token, write, "hand a secret over in a single-use token"},
	{"wrapping/unwrap", token, write, "open what was handed over: an AppRole's secret id comes this way"},
	{"wrapping/rewrap", token, write, "renew what was handed over"},
	{"wrapping/lookup", open, []string{http.MethodGet, http.MethodPost, http.MethodPut}, "check a wrapping token before it is opened"},

	{"leases/lookup", token, write, "the holder of a lease looks at it"},
	{"leases/renew", token, write, "the holder of a lease renews it"},
	{"leases/renew/*", token, write, "the same, with the lease in the path"},
	{"leases/revoke", token, write, "the holder of a lease ends it"},
	{"leases/revoke/*", token, write, "the same, with the lease in the path"},
	{"renew", token, write, "old name of leases/renew, which old clients use"},
	{"renew/*", token, write, "the same, with the lease in the path"},
	{"revoke", token, write, "old name of leases/revoke, which old clients use"},
	{"revoke/*", token, write, "the same, with the lease in the path"},

	{"capabilities", token, write, "ask what a token may do"},
	{"capabilities-self", token, write, "ask what the own token may do; the UI draws its buttons by it"},
	{"capabilities-accessor", token, write, "ask what an accessor's token may do"},

	{"mfa/validate", login, write, "second step of a login with a second factor"},

	{"internal/ui/mounts", open, read, "the UI's list of mounts, by what the token may see"},
	{"internal/ui/mounts/*", open, read, "`vault kv` asks here for a mount's version before each call"},
	{"internal/ui/namespaces", open, read, "the UI's start"},
	{"internal/ui/resultant-acl", token, read, "the UI draws its menus by it"},
	{"internal/ui/feature-flags", open, read, "the UI's start"},
	{"internal/ui/settings", open, read, "the UI of Vault 2.2 asks at its start"},
	{"internal/ui/authenticated-messages", open, read, "the UI's notices"},
	{"internal/ui/unauthenticated-messages", open, read, "the UI's notices at login"},

	{"mounts", token, read, "an administrator lists the secrets engines; they are changed on the machine"},
	{"mounts/*", token, read, "an administrator reads one mount and its tuning"},
	{"auth", token, read, "an administrator lists the auth methods; they are changed on the machine"},
	{"auth/*", token, read, "an administrator reads one auth method and its tuning"},
	{"policies/acl", token, list, "an administrator lists policies"},
	{"policies/acl/*", token, all, "an administrator reads and writes policies"},
	{"policies/password", token, list, "an administrator lists password policies"},
	{"policies/password/*", token, all, "an administrator reads and writes password policies, and generates by them"},
	{"policy", token, list, "old name of policies/acl, which old clients use"},
	{"policy/*", token, all, "old name of policies/acl, which old clients use"},
}

// systemNames are the first segments that mean something below sys/ in Vault.
// Behind a namespace prefix in the path only these are judged, because there a
// "sys" may also be a folder of somebody's secrets.
var systemNames = []string{
	"activation-flags", "audit", "audit-hash", "auth", "capabilities", "capabilities-accessor", "capabilities-self",
	"config", "control-group", "decode-token", "events", "experiments", "generate-recovery-token", "generate-root",
	"ha-status", "health", "host-info", "in-flight-req", "init", "internal", "key-status", "leader", "leases",
	"license", "locked-users", "loggers", "managed-keys", "metrics", "mfa", "monitor", "mounts", "namespaces",
	"plugins", "policies", "policy", "pprof", "quotas", "raw", "rekey", "rekey-recovery-key", "remount", "renew",
	"replication", "reporting", "revoke", "revoke-force", "revoke-prefix", "rotate", "seal", "seal-backend-status",
	"seal-status", "sealwrap", "step-down", "storage", "sync", "tools", "unseal", "utilization-report",
	"version-history", "well-known", "wrapping",
}

// allows says whether the list lets method pass to the path whose segments
// below sys/ are given. slash is a slash at the path's end.
func allows(method string, segments []string, slash bool) bool {
	return allowedRow(method, segments, slash) != nil
}

func allowedRow(method string, segments []string, slash bool) *rule {
	for i, r := range allowed {
		if !slices.Contains(r.methods, method) {
			continue
		}
		want := strings.Split(r.path, "/")
		if want[len(want)-1] == "*" {
			want = want[:len(want)-1]
			if len(segments) > len(want) && slices.Equal(segments[:len(want)], want) {
				return &allowed[i]
			}
			continue
		}
		if slices.Equal(segments, want) && (!slash || slices.Contains(r.methods, methodList)) {
			return &allowed[i]
		}
	}
	return nil
}
