package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// What is asked of the front.
const (
	healthPath = "/v1/sys/health"
	hstsHeader = "Strict-Transport-Security"
)

// Versions of TLS that are offered, lowest and highest.
func oldTLS() (lowest, highest uint16) { return tls.VersionTLS10, tls.VersionTLS11 }
func newTLS() (lowest, highest uint16) { return tls.VersionTLS12, tls.VersionTLS13 }

func (e *exam) hello(ctx context.Context, name string, versions func() (uint16, uint16)) (tls.ConnectionState, error) {
	lowest, highest := versions()
	return e.Front.Hello(ctx, name, lowest, highest)
}

func oldTLSRefused(ctx context.Context, e *exam) {
	name, ok := e.domain("the front")
	if !ok {
		return
	}
	switch state, err := e.hello(ctx, name, oldTLS); {
	case err == nil && state.Version == 0:
		e.unseen("TLS hello with 1.0 and 1.1", errNothing)
	case err == nil:
		e.fail(reinstall, "the front speaks %s", tls.VersionName(state.Version))
	case errors.Is(err, errVersions):
		e.yes("TLS hello with 1.0 and 1.1", "refused")
	default:
		// A front that is down, or resets, has not said that it refuses them.
		e.unseen("TLS hello with 1.0 and 1.1", err)
	}
}

func hstsSent(ctx context.Context, e *exam) {
	name, ok := e.domain("the front")
	if !ok {
		return
	}
	a, err := e.Front.Get(ctx, name, healthPath)
	looked := "GET https://" + name + healthPath
	switch hsts := a.Header.Get(hstsHeader); {
	case errors.Is(err, errNotSurveyed):
		e.unseen(looked, err)
	case err != nil:
		e.fail("systemctl status strongroom-front", "the front does not answer: %s", plain(err))
	case maxAge(hsts) < minHSTS:
		e.fail(reinstall, "the front's Strict-Transport-Security is %q: max-age of %d s at least is wanted", hsts, minHSTS)
	default:
		e.yes(looked, "HTTP %d, %s: %q", a.Status, hstsHeader, hsts)
	}
}

func vaultListeners(_ context.Context, e *exam) {
	f, ok := e.configuration()
	if !ok {
		return
	}
	var all []string
	tcp := 0
	for _, l := range f.Listeners {
		for kind, b := range l {
			all = append(all, kind+" "+b.setting("address"))
			if kind != "tcp" {
				continue
			}
			tcp++
			if off := b.setting("tls_disable"); off != "" && off != "false" && off != "0" {
				e.fail(reinstall, "Vault's listener on %s has tls_disable = %s", b.setting("address"), off)
			}
			if !loopback(b.setting("address")) {
				e.fail(reinstall, "Vault itself listens on %s, which is not loopback", b.setting("address"))
			}
		}
	}
	e.found(tcp, machine.VaultHCL, "listeners: %s", orNone(all))
}

// minHSTS is half a year, in seconds.
const minHSTS = 15552000

func maxAge(hsts string) int {
	for part := range strings.SplitSeq(hsts, ";") {
		if v, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(part)), "max-age="); ok {
			n, err := strconv.Atoi(strings.Trim(v, `"`))
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func loopback(hostport string) bool {
	a, err := netip.ParseAddrPort(hostport)
	return err == nil && a.Addr().IsLoopback()
}

// vaultSockets looks at what the user vault really listens on.
func vaultSockets(_ context.Context, e *exam) {
	_, u, ok := e.vaultUser()
	if !ok {
		return
	}
	sockets, err := e.listening()
	if err != nil {
		e.unseen("/proc/net", err)
		return
	}
	var own []string
	for _, s := range sockets {
		if s.uid != u.uid {
			continue
		}
		own = append(own, s.String())
		if s.addr.Addr().IsLoopback() || e.NoConfig == nil && s.addr.String() == e.Config.Node.ClusterListen {
			continue
		}
		if e.NoConfig != nil {
			e.notAsked("whether "+s.String()+" of user "+machine.UserVault+" is the cluster's", e.NoConfig)
		} else {
			e.fail("ss -lntup; "+reinstall, "user %s listens on %s, which is not loopback", machine.UserVault, s)
		}
	}
	e.found(len(own), "/proc/net/tcp, tcp6", "sockets of user %s: %s", machine.UserVault, orNone(own))
}

func tls13(ctx context.Context, e *exam) {
	name, ok := e.domain("the front")
	if !ok {
		return
	}
	state, err := e.hello(ctx, name, newTLS)
	if errors.Is(err, errNotSurveyed) {
		e.unseen("TLS hello with 1.2 and 1.3", err)
		return
	}
	if err != nil {
		e.fail("systemctl status strongroom-front", "the front does not answer: %s", plain(err))
		return
	}
	e.yes("TLS hello with 1.2 and 1.3", "%s with %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	if state.Version != tls.VersionTLS13 {
		e.fail(reinstall, "the front prefers %s", tls.VersionName(state.Version))
	}
}

func listeners(_ context.Context, e *exam) {
	sockets, err := e.listening()
	if err != nil {
		e.unseen("/proc/net", err)
		return
	}
	a, ok := e.people()
	if !ok {
		return
	}
	var expected, local, unjudged []string
	for _, s := range sockets {
		switch {
		case e.expected(s):
			expected = append(expected, s.String())
		case s.addr.Addr().IsLoopback():
			local = append(local, s.String()+" of "+a.name(s.uid))
		case a.name(s.uid) == "systemd-resolve" && (s.addr.Port() == 5355 || s.addr.Port() == 5353):
			// To stop it would take DNS away.
			const remedy = "put \"[Resolve]\", \"LLMNR=no\" and \"MulticastDNS=no\" as lines into /etc/systemd/resolved.conf.d/no-names.conf, then systemctl restart systemd-resolved"
			if e.NoConfig == nil && e.Config.Firewall.Manage {
				e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "%s of systemd-resolved (names of the neighbourhood), which the firewall drops", s)
				continue
			}
			e.warn(remedy, "%s of systemd-resolved answers the neighbourhood", s)
		case e.NoConfig != nil:
			// It may be sshd, which nobody should be told to stop.
			unjudged = append(unjudged, s.String()+" of "+a.name(s.uid))
		default:
			e.fail(fmt.Sprintf("ss -lnp 'sport = :%d' shows who it is; stop and disable it", s.addr.Port()), "%s of %s listens to the network", s, a.name(s.uid))
		}
	}
	e.found(len(expected), "/proc/net/{tcp,tcp6,udp,udp6}", "expected: %s", orNone(expected))
	if len(local) > 0 {
		e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "others, on loopback alone: %s", words.List(local, 8))
	}
	if e.NoConfig != nil {
		e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "others, to the network: %s", orNone(unjudged))
		e.notAsked("which ports are sshd's and the cluster's", e.NoConfig)
	}
}

// expected says whether a socket is the appliance's, or one that the machine
// itself needs.
func (e *exam) expected(s socket) bool {
	port := int(s.addr.Port())
	switch {
	case e.NoConfig == nil && s.addr.String() == e.Config.Node.ClusterListen:
		return true
	case s.network == "tcp" && (port == 443 || port == 80):
		return s.uid == 0 // systemd holds them
	case s.network == "tcp" && e.NoConfig == nil && port == e.Config.Firewall.SSHPort:
		return s.uid == 0
	case s.network == "udp" && (port == 68 || port == 546): // DHCP's client
		return true
	case s.network == "udp" && s.addr.Addr().IsLinkLocalUnicast(): // DHCPv6 binds there
		return port == 546
	}
	return false
}

// firewallOurs says whether the rules are the appliance's to keep.
func (e *exam) firewallOurs() bool {
	switch {
	case e.NoConfig != nil:
		// The rules may be the operator's own, and a port that they let in sshd's.
		e.notAsked("whose the firewall is, and which ports it lets in", e.NoConfig)
	case !e.Config.Firewall.Manage:
		e.moot("appliance.toml", "firewall.manage = false")
	default:
		return true
	}
	return false
}

// firewallRules wants the whole table that is in force to be the one that the
// installer wrote. That the file is as it was written, the item drift says.
func firewallRules(ctx context.Context, e *exam) {
	if !e.firewallOurs() {
		if e.NoConfig == nil {
			e.warn("set firewall.manage = true, or see to it that your own rules do the same: docs/firewall.md", "the firewall is not the appliance's: nobody has checked it")
		}
		return
	}
	a, ok := e.people()
	if !ok {
		return
	}
	file, err := e.Machine.ReadFile(machine.NftablesConf)
	if err != nil {
		e.unseen(machine.NftablesConf, err)
		return
	}
	want := writtenRules(string(file))
	if want.rules() == 0 {
		e.unseen(machine.NftablesConf, errNothing)
		return
	}
	for _, user := range []struct{ name, chain string }{{machine.UserVault, "vault_out"}, {machine.UserFront, "front_out"}} {
		u, _ := a.user(user.name)
		if bound := fmt.Sprintf("meta skuid %d goto %s", u.uid, user.chain); !slices.Contains(want["output"], bound) {
			e.fail(reinstall, "%s does not bind what user %s may connect to: it has no rule %q", machine.NftablesConf, user.name, bound)
		}
	}
	if e.got.no {
		return // what is in force can't be held against it
	}
	out, err := e.Machine.Run(ctx, rulesetCommand()...)
	if err != nil {
		e.unseen("nft -j -t list ruleset", err)
		return
	}
	rules, err := loadedRules(out)
	if err != nil {
		e.unseen("nft -j -t list ruleset", err)
		return
	}
	const restart = "systemctl restart " + machine.UnitFirewall
	if len(rules) == 0 {
		e.fail(restart, "the table inet %s is not loaded", machine.FirewallTable).fix(restartFirewall, restart)
		return
	}
	for _, d := range rules.differences(want) {
		e.fail(restart, "%s", d).fix(restartFirewall, restart)
	}
	e.found(rules.rules(), "nft -j -t list ruleset", "table inet %s: %s in %s", machine.FirewallTable, words.Count(rules.rules(), "rule"), words.Count(rules.chains(), "chain"))
}

// restartFirewall has the look of every minute done at once, too: what it has found before
// is over.
func restartFirewall(ctx context.Context, m Machine) error {
	if err := run("systemctl", "restart", machine.UnitFirewall)(ctx, m); err != nil {
		return err
	}
	return run("systemctl", "start", machine.UnitFirewallWatch)(ctx, m)
}

func firewallAtBoot(ctx context.Context, e *exam) {
	if !e.firewallOurs() {
		return
	}
	p, err := e.show(ctx, machine.UnitFirewall, "UnitFileState", "ActiveState")
	if err != nil {
		e.unseen(machine.UnitFirewall, err)
		return
	}
	if p["UnitFileState"] != "enabled" {
		e.fail("systemctl enable "+machine.UnitFirewall, "the firewall is gone after the next boot: %s is %s", machine.UnitFirewall, p["UnitFileState"]).
			fix(run("systemctl", "enable", machine.UnitFirewall), "systemctl enable %s", machine.UnitFirewall)
		return
	}
	e.yes(machine.UnitFirewall, "%s, %s", p["UnitFileState"], p["ActiveState"])
}

func sysClosed(ctx context.Context, e *exam) {
	name, ok := e.domain("the front")
	if !ok {
		return
	}
	refused := 0
	for _, p := range closedPaths() {
		a, err := e.Front.Get(ctx, name, p)
		switch {
		case err != nil:
			e.unseen("GET "+p, err)
		case refusedByFront(a):
			refused++
		default:
			e.fail(reinstall, "reachable from outside: %s (HTTP %d)", p, a.Status)
		}
	}
	e.found(refused, "GET through the front", "%s refused by the front itself", words.Count(refused, "path"))
}

// closedPaths are what nobody outside may reach. They are only asked for, so
// none of them does anything where it passes.
func closedPaths() []string {
	return []string{
		"/v1/sys/init", "/v1/sys/unseal", "/v1/sys/rekey/init", "/v1/sys/rekey-recovery-key/init", "/v1/sys/generate-root/attempt",
		"/v1/sys/storage/raft/configuration", "/v1/sys/storage/raft/snapshot", "/v1/sys/raw/core/keyring", "/v1/sys/step-down",
		// The same in disguise.
		"/v1/sys//init", "/v1/./sys/init", "/v1/%73ys/init", "/v1/sys%2finit", "/v1/x/../sys/init", "//v1/sys/init",
		// The log-in that nobody outside can lock.
		"/v1/auth/" + machine.AuthLocal + "/login/admin", "/v1/auth//" + machine.AuthLocal + "/login/admin",
	}
}

// refusedByFront says whether the front answered by itself that the path is not
// for the outside: by its words, which Vault has not.
func refusedByFront(a Answer) bool {
	words := map[int]string{
		http.StatusForbidden: config.RefusedSystem, http.StatusBadRequest: config.RefusedSpelling, http.StatusNotFound: config.RefusedUnknown,
	}[a.Status]
	return words != "" && strings.Contains(a.Body, words) || a.Status == http.StatusForbidden && strings.Contains(a.Body, config.RefusedLocal)
}
