package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
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

// tlsOutside is item 3.
func tlsOutside(ctx context.Context, e *exam) {
	if name, ok := e.domain("the front"); ok {
		state, err := e.hello(ctx, name, oldTLS)
		switch {
		case errors.Is(err, errNotSurveyed):
			e.unseen("TLS hello with 1.0 and 1.1", err)
		case err == nil:
			e.saw("TLS hello", "%s was accepted", tls.VersionName(state.Version))
			e.fail(reinstall, "the front speaks %s", tls.VersionName(state.Version))
		default:
			// A front that is down refuses as well: the next question tells.
			e.saw("TLS hello with 1.0 and 1.1", "refused")
		}
		a, err := e.Front.Get(ctx, name, healthPath)
		if errors.Is(err, errNotSurveyed) {
			e.unseen("GET https://"+name+healthPath, err)
		} else if err != nil {
			e.fail("systemctl status strongroom-front", "the front does not answer: %s", plain(err))
		} else {
			hsts := a.Header.Get(hstsHeader)
			e.saw("GET https://"+name+healthPath, "HTTP %d, %s: %q", a.Status, hstsHeader, hsts)
			if maxAge(hsts) < minHSTS {
				e.fail(reinstall, "the front's Strict-Transport-Security is %q: max-age of %d s at least is wanted", hsts, minHSTS)
			}
		}
	}
	if f, ok := e.configuration(); ok {
		var all []string
		for _, l := range f.Listeners {
			for kind, b := range l {
				all = append(all, kind+" "+b.setting("address"))
				if kind != "tcp" {
					continue
				}
				if off := b.setting("tls_disable"); off != "" && off != "false" && off != "0" {
					e.fail(reinstall, "Vault's listener on %s has tls_disable = %s", b.setting("address"), off)
				}
				if !loopback(b.setting("address")) {
					e.fail(reinstall, "Vault itself listens on %s, which is not loopback", b.setting("address"))
				}
			}
		}
		e.saw(vaultHCL, "listeners: %s", orNone(all))
	}
	e.vaultsSockets()
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

// vaultsSockets looks at what the user vault really listens on.
func (e *exam) vaultsSockets() {
	a, ok := e.people()
	if !ok {
		return
	}
	u, ok := a.user(vaultUser)
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
			e.unseen("whether "+s.String()+" of user "+vaultUser+" is the cluster's", e.NoConfig)
		} else {
			e.fail("ss -lntup; "+reinstall, "user %s listens on %s, which is not loopback", vaultUser, s)
		}
	}
	e.saw("/proc/net/tcp, tcp6", "sockets of user %s: %s", vaultUser, orNone(own))
}

// tls13 is item 16.
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
	e.saw("TLS hello with 1.2 and 1.3", "%s with %s", tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	if state.Version != tls.VersionTLS13 {
		e.fail(reinstall, "the front prefers %s", tls.VersionName(state.Version))
	}
}

// listeners is item 6.
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
		case e.NoConfig != nil:
			// It may be sshd, which nobody should be told to stop.
			unjudged = append(unjudged, s.String()+" of "+a.name(s.uid))
		default:
			e.fail(fmt.Sprintf("ss -lnp 'sport = :%d' shows who it is; stop and disable it", s.addr.Port()), "%s of %s listens to the network", s, a.name(s.uid))
		}
	}
	e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "expected: %s", orNone(expected))
	if len(local) > 0 {
		e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "others, on loopback alone: %s", list(local))
	}
	if e.NoConfig != nil {
		e.saw("/proc/net/{tcp,tcp6,udp,udp6}", "others, to the network: %s", orNone(unjudged))
		e.unseen("which ports are sshd's and the cluster's", e.NoConfig)
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
	case s.network == "udp" && port == 443:
		return s.uid == 0
	case s.network == "udp" && (port == 68 || port == 546): // DHCP's client
		return true
	case s.network == "udp" && s.addr.Addr().IsLinkLocalUnicast(): // DHCPv6 binds there
		return port == 546
	}
	return false
}

// firewall is item 7.
func firewall(ctx context.Context, e *exam) {
	if e.NoConfig != nil {
		// The rules may be the operator's own, and a port that they let in sshd's.
		e.unseen("whose the firewall is, and which ports it lets in", e.NoConfig)
		return
	}
	if !e.Config.Firewall.Manage {
		e.saw("appliance.toml", "firewall.manage = false")
		e.warn("set firewall.manage = true, or see to it that your own rules do the same: docs/firewall.md", "the firewall is not the appliance's: nobody has checked it")
		return
	}
	out, err := e.Machine.Run(ctx, rulesetCommand()...)
	if err != nil {
		e.unseen("nft -j list ruleset", err)
		return
	}
	rules, err := parseRuleset(out)
	if err != nil {
		e.unseen("nft -j list ruleset", err)
		return
	}
	a, ok := e.people()
	if !ok {
		return
	}
	allowed := map[int]bool{80: true, 443: true, e.Config.Firewall.SSHPort: true}
	if addr, err := netip.ParseAddrPort(e.Config.Node.ClusterListen); err == nil && len(e.Config.Node.Peers) > 0 {
		allowed[int(addr.Port())] = true
	}
	vault, _ := a.user(vaultUser)
	front, _ := a.user(frontUser)
	faults := rules.faults(allowed, vault.uid, front.uid)
	for _, f := range faults {
		e.fail("systemctl restart "+firewallUnit, "%s", f).fix(run("systemctl", "restart", firewallUnit), "systemctl restart %s", firewallUnit)
	}
	if len(faults) == 0 {
		e.saw("nft -j list ruleset", "table inet strongroom: input drops but ports %s; output binds the users vault and strongroom-front", rules.ports())
	} else {
		e.saw("nft -j list ruleset", "%s", plural(len(faults), "fault"))
	}
	p, err := e.show(ctx, firewallUnit, "UnitFileState", "ActiveState")
	if err != nil {
		e.unseen(firewallUnit, err)
		return
	}
	e.saw(firewallUnit, "%s, %s", p["UnitFileState"], p["ActiveState"])
	if p["UnitFileState"] != "enabled" {
		e.fail("systemctl enable "+firewallUnit, "the firewall is gone after the next boot: %s is %s", firewallUnit, p["UnitFileState"]).
			fix(run("systemctl", "enable", firewallUnit), "systemctl enable %s", firewallUnit)
	}
}

// sysClosed is item 27.
func sysClosed(ctx context.Context, e *exam) {
	name, ok := e.domain("the front")
	if !ok {
		return
	}
	var open []string
	n := 0
	for _, p := range closedPaths() {
		a, err := e.Front.Get(ctx, name, p)
		if err != nil {
			e.unseen("GET "+p, err)
			continue
		}
		n++
		if !refusedByFront(a) {
			open = append(open, fmt.Sprintf("%s (HTTP %d)", p, a.Status))
		}
	}
	e.saw("GET through the front", "%s of sys/, %d refused by the front itself", plural(n, "path"), n-len(open))
	for _, p := range open {
		e.fail(reinstall, "reachable from outside: %s", p)
	}
}

// closedPaths are what nobody outside may reach. They are only asked for, so
// none of them does anything where it passes.
func closedPaths() []string {
	return []string{
		"/v1/sys/init", "/v1/sys/unseal", "/v1/sys/rekey/init", "/v1/sys/rekey-recovery-key/init", "/v1/sys/generate-root/attempt",
		"/v1/sys/storage/raft/configuration", "/v1/sys/storage/raft/snapshot", "/v1/sys/raw/core/keyring", "/v1/sys/step-down",
		// The same in disguise.
		"/v1/sys//init", "/v1/./sys/init", "/v1/%73ys/init", "/v1/sys%2finit", "/v1/x/../sys/init", "//v1/sys/init",
	}
}

// refusedByFront says whether the front answered by itself that the path is not
// for the outside, or sends the client to the clean form of it.
func refusedByFront(a Answer) bool {
	switch a.Status {
	case 301, 307, 308:
		return true
	case 400, 403, 404, 405:
		return !strings.Contains(a.Body, "permission denied") && !strings.Contains(a.Body, "missing client token") &&
			!strings.Contains(a.Body, "unsupported operation") && !strings.Contains(a.Body, "no handler for route")
	}
	return false
}

var errNoRules = errors.New("the table inet strongroom is not loaded")
