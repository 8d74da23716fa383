package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/miekg/dns"

	"strongroom.example/appliance/serve/dnscheck"
)

// OSNetwork asks the machine's own.
type OSNetwork struct {
	Resolver *net.Resolver
	// Direct is what is asked past /etc/hosts; without servers the system's.
	Direct dnscheck.Resolver
}

const (
	resolvConf = "/etc/resolv.conf"
	// resolvedConf names the servers behind systemd-resolved, whose own answers
	// come from /etc/hosts too.
	resolvedConf = "/run/systemd/resolve/resolv.conf"
)

var _ Network = OSNetwork{}

// Lookup implements Network. Loopback addresses are /etc/hosts's (cloud-init
// writes 127.0.1.1 there for a machine that is named by its domain): where there
// are no others, the name servers are asked themselves.
func (o OSNetwork) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, err := o.Resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !a.IsLoopback() {
			out = append(out, a)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return o.direct(ctx, name)
}

// direct asks the name servers.
func (o OSNetwork) direct(ctx context.Context, name string) ([]netip.Addr, error) {
	r := o.Direct
	if len(r.Servers) == 0 {
		var err error
		if r.Servers, err = nameServers(resolvConf, resolvedConf); err != nil {
			return nil, err
		}
	}
	var out []netip.Addr
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		records, err := r.Lookup(ctx, name, t)
		if err != nil {
			return nil, err
		}
		for _, rr := range records {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(ip); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%q is in /etc/hosts alone: the name servers have no address of it", name)
	}
	return out, nil
}

// nameServers are those of a resolv.conf(5), or where it names nothing but this
// machine those of behind, if that file is there. Each is host:port.
func nameServers(file, behind string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("name servers: %w", err)
	}
	elsewhere := slices.ContainsFunc(conf.Servers, func(s string) bool {
		a, err := netip.ParseAddr(s)
		return err != nil || !a.IsLoopback()
	})
	if !elsewhere {
		switch c, err := dns.ClientConfigFromFile(behind); {
		case err == nil && len(c.Servers) > 0:
			conf = c
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("name servers: %w", err)
		}
	}
	var out []string
	for _, s := range conf.Servers {
		out = append(out, net.JoinHostPort(s, conf.Port))
	}
	return out, nil
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
