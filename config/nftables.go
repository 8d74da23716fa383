package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// FirewallParams is what the rules depend on.
type FirewallParams struct {
	SSHPort int
	// SSHFrom are the CIDR ranges from which SSH is let in.
	SSHFrom []string
	// VaultPort is that of Vault's own listener on loopback; ClusterPort that of
	// raft, 0 for none.
	VaultPort, ClusterPort int
	// Peers are the addresses of the other nodes, which may reach ClusterPort.
	Peers []string
	// VaultUID and FrontUID are the users that the outgoing rules are for.
	VaultUID, FrontUID int
	// VaultOut and FrontOut are the TCP ports they may connect to, beside DNS.
	VaultOut, FrontOut []int
}

// RenderFirewall gives the file for `nft -f`. Every fault is reported at once.
func RenderFirewall(p FirewallParams) ([]byte, error) {
	var f faults
	for name, port := range map[string]int{"SSHPort": p.SSHPort, "VaultPort": p.VaultPort} {
		f.add(name, checkPort(port))
	}
	if p.ClusterPort != 0 {
		f.add("ClusterPort", checkPort(p.ClusterPort))
	}
	for name, uid := range map[string]int{"VaultUID": p.VaultUID, "FrontUID": p.FrontUID} {
		if uid <= 0 {
			f.add(name, fmt.Errorf("%d is not an unprivileged user", uid))
		}
	}
	for name, ports := range map[string][]int{"VaultOut": p.VaultOut, "FrontOut": p.FrontOut} {
		if len(ports) == 0 {
			f.add(name, errors.New("is empty"))
		}
		for _, port := range ports {
			f.add(name, checkPort(port))
		}
	}
	if len(p.SSHFrom) == 0 {
		f.add("SSHFrom", errors.New("is empty: nobody could log in any more"))
	}
	data := struct {
		FirewallParams
		SSHFrom4, SSHFrom6, Peers4, Peers6 []string
		// Named4 and Named6 are those of SSHFrom that are not everybody.
		Named4, Named6 []string
		// Begun are the ports whose connections are marked.
		Begun []int
		Mark  string
	}{FirewallParams: p, Begun: []int{80, 443, p.SSHPort}, Mark: fmt.Sprintf("0x%08x", firewallMark)}
	for _, s := range p.SSHFrom {
		prefix, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			f.add("SSHFrom", fmt.Errorf("%q is not an address range", s))
		case prefix.Addr().Is4():
			data.SSHFrom4 = append(data.SSHFrom4, prefix.Masked().String())
			if prefix.Bits() > 0 {
				data.Named4 = append(data.Named4, prefix.Masked().String())
			}
		default:
			data.SSHFrom6 = append(data.SSHFrom6, prefix.Masked().String())
			if prefix.Bits() > 0 {
				data.Named6 = append(data.Named6, prefix.Masked().String())
			}
		}
	}
	for _, s := range p.Peers {
		addr, err := netip.ParseAddr(s)
		switch {
		case err != nil || addr.Zone() != "":
			f.add("Peers", fmt.Errorf("%q is not an address", s))
		case addr.Is4():
			data.Peers4 = append(data.Peers4, addr.String())
		default:
			data.Peers6 = append(data.Peers6, addr.String())
		}
	}
	if err := f.err(); err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	t, err := template.New("nftables.conf.tmpl").Funcs(template.FuncMap{"ports": portSet, "everyone": func(s string) bool { return strings.HasSuffix(s, "/0") }}).Parse(firewallTemplate)
	if err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("firewall: %w", err)
	}
	return b.Bytes(), nil
}

// firewallMark is the one bit of connections' marks that is the appliance's: such a
// connection was let in.
const firewallMark = 0x10000000

func checkPort(n int) error {
	if n < 1 || n > 65535 {
		return fmt.Errorf("%d is not a port", n)
	}
	return nil
}

// portSet is ports as the elements of an nftables set.
func portSet(ports []int) string {
	ports = slices.Compact(slices.Sorted(slices.Values(ports)))
	s := make([]string, len(ports))
	for i, p := range ports {
		s[i] = strconv.Itoa(p)
	}
	return strings.Join(s, ", ")
}
