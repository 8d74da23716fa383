package front

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// fdPrefix marks an address that is a socket of systemd's.
const fdPrefix = "fd:"

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

// resolve turns addresses of the configuration into Caddy's. network is "fd"
// for streams and "fdgram" for datagrams.
func (s sockets) resolve(addrs []string, network string) ([]string, error) {
	var out []string
	for _, a := range addrs {
		name, ok := strings.CutPrefix(a, fdPrefix)
		if !ok {
			out = append(out, a)
			continue
		}
		if len(s.numbers[name]) == 0 {
			return nil, fmt.Errorf("listen on %q: systemd passes no socket with FileDescriptorName=%s", a, name)
		}
		for _, fd := range s.numbers[name] {
			out = append(out, network+"/"+strconv.Itoa(fd))
		}
	}
	return out, nil
}
