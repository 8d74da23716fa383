package steps

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"strongroom/appliance/dnscheck"
)

// OSNetwork asks the machine's own.
type OSNetwork struct{ Resolver *net.Resolver }

var _ Network = OSNetwork{}

// Lookup implements Network.
func (o OSNetwork) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, err := o.Resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// CAA implements Network.
func (OSNetwork) CAA(ctx context.Context, name string, identities []string) error {
	return dnscheck.Resolver{}.CheckCAA(ctx, name, identities)
}

// Local implements Network.
func (OSNetwork) Local() ([]netip.Addr, error) {
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	var out []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

// Taken implements Network, by trying.
func (OSNetwork) Taken(network string, port int) (bool, error) {
	addr := net.JoinHostPort("", strconv.Itoa(port))
	var err error
	if network == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", addr); err == nil {
			return false, c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return false, l.Close()
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return true, nil
	}
	return false, err
}
