package doctor

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// socket is one that listens: proc_net_tcp in the kernel's documentation,
// https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html.
type socket struct {
	network string // tcp or udp
	addr    netip.AddrPort
	uid     int
}

func (s socket) String() string { return s.network + " " + s.addr.String() }

// States of sockets in these tables.
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// netDir holds the kernel's tables of sockets; /proc/net itself is hidden where
// only processes are to be seen.
const netDir = "/proc/self/net/"

// listening reads the kernel's tables of sockets.
func (e *exam) listening() ([]socket, error) {
	var out []socket
	for _, table := range netTables() {
		b, err := e.Machine.ReadFile(netDir + table)
		if err != nil {
			if strings.HasSuffix(table, "6") && errors.Is(err, fs.ErrNotExist) {
				continue // a kernel without IPv6
			}
			return nil, fmt.Errorf("%s: %w", netDir+table, err)
		}
		s, err := parseSockets(strings.TrimSuffix(table, "6"), string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", netDir+table, err)
		}
		out = append(out, s...)
	}
	slices.SortFunc(out, func(a, b socket) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(out), nil
}

// parseSockets gives those that take connections or datagrams from anybody.
func parseSockets(network, table string) ([]socket, error) {
	var out []socket
	head, lines, _ := strings.Cut(table, "\n")
	if !strings.Contains(head, "local_address") {
		return nil, errNothing
	}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 8 {
			return nil, fmt.Errorf("line %.60q has %d fields", line, len(f))
		}
		if network == "tcp" && f[3] != tcpListen || network == "udp" && f[3] != udpOpen {
			continue
		}
		addr, err := parseHexAddr(f[1])
		if err != nil {
			return nil, err
		}
		uid, err := strconv.Atoi(f[7])
		if err != nil {
			return nil, fmt.Errorf("uid %.20q", f[7])
		}
		out = append(out, socket{network, addr, uid})
	}
	return out, nil
}

// parseHexAddr reads "0100007F:1F90": words of 32 bits in the machine's byte
// order, which is little-endian where the appliance runs (amd64, arm64).
func parseHexAddr(s string) (netip.AddrPort, error) {
	bad := fmt.Errorf("address %.60q", s)
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, bad
	}
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, bad
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, bad
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), nil
}
