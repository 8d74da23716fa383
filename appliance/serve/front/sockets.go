package front

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"

	"strongroom.example/config"
)

// firstFD is where systemd's sockets start: sd_listen_fds(3).
const firstFD = 3

// sockets are what systemd has passed, by FileDescriptorName=.
type sockets struct {
	numbers map[string][]int
	// Kept, because a collected os.File closes its descriptor, which Caddy
	// uses by number.
	files []*os.File
}

// inherited takes systemd's sockets, and the variables that tell of them out
// of the environment.
func inherited() sockets {
	s := sockets{numbers: map[string][]int{}, files: activation.Files(true)}
	for i, f := range s.files {
		s.numbers[f.Name()] = append(s.numbers[f.Name()], firstFD+i)
	}
	return s
}

// resolve turns addresses of the configuration into Caddy's.
func (s sockets) resolve(addrs []string) ([]string, error) {
	var out []string
	for _, a := range addrs {
		name, ok := strings.CutPrefix(a, config.FrontSocket)
		if !ok {
			out = append(out, a)
			continue
		}
		if len(s.numbers[name]) == 0 {
			return nil, fmt.Errorf("listen on %q: systemd passes no socket with FileDescriptorName=%s", a, name)
		}
		for _, fd := range s.numbers[name] {
			out = append(out, "fd/"+strconv.Itoa(fd))
		}
	}
	return out, nil
}

// ports are those that challenges arrive at; 0 where nothing listens.
type ports struct{ http, https int }

// portsOf finds them: from the addresses, or from the sockets themselves.
func (s sockets) portsOf(c Config) (ports, error) {
	var p ports
	for _, of := range []struct {
		addrs []string
		port  *int
	}{{c.Redirect, &p.http}, {c.Listen, &p.https}} {
		if len(of.addrs) == 0 {
			continue
		}
		addr, err := s.address(of.addrs[0])
		if err != nil {
			return p, err
		}
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return p, fmt.Errorf("listen on %q: %w", addr, err)
		}
		if *of.port, err = net.LookupPort("tcp", port); err != nil {
			return p, fmt.Errorf("listen on %q: %w", addr, err)
		}
	}
	return p, nil
}

// address is host:port of addr, which may be a socket of systemd's.
func (s sockets) address(addr string) (string, error) {
	name, ok := strings.CutPrefix(addr, config.FrontSocket)
	if !ok {
		return addr, nil
	}
	if len(s.numbers[name]) == 0 {
		return "", fmt.Errorf("listen on %q: systemd passes no socket with FileDescriptorName=%s", addr, name)
	}
	ln, err := net.FileListener(s.files[s.numbers[name][0]-firstFD]) // a copy
	if err != nil {
		return "", fmt.Errorf("socket %q: %w", addr, err)
	}
	return ln.Addr().String(), ln.Close()
}

// dialAddress is where this process reaches its own listener.
func (s sockets) dialAddress(addr string) (string, error) {
	addr, err := s.address(addr)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("listen on %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}
