package safehttp

import (
	"fmt"
	"net/netip"
)

// Policy says which addresses may be dialled. The zero value allows public
// unicast addresses only.
type Policy struct {
	// Allow lists exceptions, such as a private network with a self-hosted
	// GitLab.
	Allow []netip.Prefix
}

// ParsePrefixes reads CIDRs ("10.1.2.0/24") and single addresses. Prefixes so
// wide that they undo the protection are refused.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, addrErr := netip.ParseAddr(text)
			if addrErr != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%.60q is no address and no CIDR such as 10.1.2.0/24", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		switch {
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%q: write the IPv4 address itself", text)
		case p != p.Masked():
			return nil, fmt.Errorf("%q has host bits set; the network is %s", text, p.Masked())
		case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 7:
			return nil, fmt.Errorf("%q is too wide: at least /8 for IPv4, /7 for IPv6", text)
		}
		out = append(out, p)
	}
	return out, nil
}

// Check returns nil when a may be dialled, and otherwise says why not.
func (p Policy) Check(a netip.Addr) error {
	if a.Zone() != "" {
		return fmt.Errorf("address %s has a zone", a)
	}
	if a.Is4In6() {
		return fmt.Errorf("address %s is IPv4 mapped into IPv6", a)
	}
	excepted := p.excepts(a)
	for _, r := range special {
		if !r.prefix.Contains(a) || excepted {
			continue
		}
		return fmt.Errorf("address %s is %s", a, r.what)
	}
	if !excepted && isMetadata(a) {
		return fmt.Errorf("address %s is where a cloud answers to its own machines (metadata)", a)
	}
	if a.Is6() && !excepted && !global6.Contains(a) {
		return fmt.Errorf("address %s is not public unicast", a)
	}
	// An exception for a translator is none for what lies behind it.
	if inner, ok := embedded(a); ok {
		if err := p.Check(inner); err != nil {
			return fmt.Errorf("address %s leads to a forbidden one: %w", a, err)
		}
	}
	return nil
}

// Excepts tells whether a is one of the explicit exceptions.
func (p Policy) Excepts(a netip.Addr) bool { return a.Zone() == "" && p.excepts(a) }

func (p Policy) excepts(a netip.Addr) bool {
	for _, allow := range p.Allow {
		if !allow.Contains(a) {
			continue
		}
		// Where cloud machines get their credentials from: only an exception
		// for this very address opens it.
		if isMetadata(a) && allow.Bits() != a.BitLen() {
			continue
		}
		return true
	}
	return false
}

// isMetadata also knows the addresses that end in 169.254.169.254, as OpenStack's
// fe80::a9fe:a9fe.
func isMetadata(a netip.Addr) bool {
	if b := a.As16(); a.Is6() && netip.AddrFrom4([4]byte(b[12:16])) == metadata4 {
		return true
	}
	for _, m := range metadata {
		if m.Contains(a) {
			return true
		}
	}
	return false
}

// embedded is the IPv4 address that a translates or tunnels to.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() {
		return netip.Addr{}, false
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), nat64Local.Contains(a), siit.Contains(a), compatible.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return netip.Addr{}, false
}

type reserved struct {
	prefix netip.Prefix
	what   string
}

// These tables are constants that Go has no way to declare as such.
var (
	metadata4  = netip.MustParseAddr("169.254.169.254")
	global6    = netip.MustParsePrefix("2000::/3")
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96")
	compatible = netip.MustParsePrefix("::/96")
	// nat64Local is RFC 8215's; in a prefix of 96 bits, as translators are
	// mostly set up, the IPv4 address is at the end.
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")

	// metadata is where clouds answer to their own machines: credentials,
	// user data, tokens of the machine's role.
	metadata = []netip.Prefix{
		netip.MustParsePrefix("169.254.169.0/24"),    // nearly all of them
		netip.MustParsePrefix("169.254.170.0/24"),    // AWS: ECS, EKS
		netip.MustParsePrefix("169.254.0.23/32"),     // Tencent
		netip.MustParsePrefix("169.254.42.42/32"),    // Scaleway
		netip.MustParsePrefix("168.63.129.16/32"),    // Azure's host
		netip.MustParsePrefix("100.100.100.200/32"),  // Alibaba
		netip.MustParsePrefix("192.0.0.192/32"),      // Oracle, first generation
		netip.MustParsePrefix("fd00:ec2::/32"),       // AWS: ::254, EKS ::23, DNS ::253
		netip.MustParsePrefix("fd20:ce::/32"),        // Google: ::254
		netip.MustParsePrefix("fd00:42::/32"),        // Scaleway: ::42
		netip.MustParsePrefix("fd00:c1::/32"),        // Oracle
		netip.MustParsePrefix("fd00:a9fe:a9fe::/48"), // Akamai: ::1
	}

	// special follows IANA's registries of special-purpose addresses (RFC 6890
	// and its updates) for what is not globally reachable, or leads elsewhere.
	special = []reserved{
		{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
		{netip.MustParsePrefix("10.0.0.0/8"), "private"},
		{netip.MustParsePrefix("100.64.0.0/10"), "shared by a carrier (CGNAT)"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("168.63.129.16/32"), "a cloud's host"},
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
		{netip.MustParsePrefix("172.16.0.0/12"), "private"},
		{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols"},
		{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
		{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
		{netip.MustParsePrefix("192.168.0.0/16"), "private"},
		{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
		{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
		{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
		{netip.MustParsePrefix("::/128"), "unspecified"},
		{netip.MustParsePrefix("::1/128"), "loopback"},
		{compatible, "IPv4-compatible"},
		{siit, "IPv4 translated (SIIT)"},
		{nat64, "IPv4 translated (NAT64)"},
		{nat64Local, "IPv4 translated (NAT64, local)"},
		{netip.MustParsePrefix("100::/64"), "discarded"},
		{netip.MustParsePrefix("2001::/23"), "reserved for protocols (Teredo, ORCHID and others)"},
		{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
		{sixToFour, "6to4"},
		{netip.MustParsePrefix("3fff::/20"), "for documentation"},
		{netip.MustParsePrefix("fc00::/7"), "private (unique local)"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"},
		{netip.MustParsePrefix("fec0::/10"), "site-local"},
		{netip.MustParsePrefix("ff00::/8"), "multicast"},
	}
)
