package systemd

import (
	"bufio"
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Port is one that a socket unit binds, on whatever address.
type Port struct {
	Network string // tcp or udp
	Number  int
}

// Ports are those that the socket units bind, sorted. Vault's own are not among
// them: it binds what its configuration says.
func Ports() []Port {
	var ports []Port
	for _, name := range Names() {
		if !strings.HasSuffix(name, ".socket") {
			continue
		}
		unit, err := Unit(name)
		if err != nil {
			panic(err) // it is embedded
		}
		found, err := portsOf(unit)
		if err != nil {
			panic(fmt.Sprintf("systemd: %s: %v", name, err))
		}
		ports = append(ports, found...)
	}
	slices.SortFunc(ports, func(a, b Port) int {
		if c := strings.Compare(a.Network, b.Network); c != 0 {
			return c
		}
		return a.Number - b.Number
	})
	return slices.Compact(ports)
}

// portsOf reads the ports of a socket unit: systemd.socket(5), ListenStream= and
// ListenDatagram=, each a path, PORT or ADDRESS:PORT.
func portsOf(unit []byte) ([]Port, error) {
	networks := map[string]string{"ListenStream": "tcp", "ListenDatagram": "udp"}
	var ports []Port
	s := bufio.NewScanner(bytes.NewReader(unit))
	for s.Scan() {
		key, value, _ := strings.Cut(strings.TrimSpace(s.Text()), "=")
		network := networks[key]
		if network == "" || value == "" || strings.HasPrefix(value, "/") || strings.HasPrefix(value, "@") {
			continue
		}
		n, err := strconv.ParseUint(value[strings.LastIndex(value, ":")+1:], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s=%s: no port: %w", key, value, err)
		}
		ports = append(ports, Port{network, int(n)})
	}
	return ports, s.Err()
}
