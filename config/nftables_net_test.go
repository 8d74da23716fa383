package config

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netns is a network namespace: what is done in it, is done by its own thread.
type netns struct {
	t   *testing.T
	do  chan func()
	tid int
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{t: t, do: make(chan func())}
	ready := make(chan error)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and its network with it.
		runtime.LockOSThread()
		n.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		if err == nil {
			for f := range n.do {
				f()
			}
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.do) })
	return n
}

func (n *netns) in(f func()) {
	done := make(chan struct{})
	n.do <- func() { defer close(done); f() }
	<-done
}

// sh runs a script in it and gives what it prints.
func (n *netns) sh(script string) string {
	n.t.Helper()
	var out []byte
	var err error
	n.in(func() { out, err = exec.Command("sh", "-ec", script).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// two is a server behind the rules, and the world outside, which has all addresses of
// 198.19.0.0/16 and fd99::/32, and from which those of 198.18.0.0/16 and fd98::/32 can be forged.
type two struct {
	server, world *netns
	rules         string
	raw           map[int]int // sockets for forged packets, by family
}

const (
	serverAddr  = "10.77.0.1"
	serverAddr6 = "fd77::1"
)

func newTwo(t *testing.T, p FirewallParams, change func(string) string) *two {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: no network of one's own")
	}
	for _, prog := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Skipf("no %s here", prog)
		}
	}
	rules, err := RenderFirewall(p)
	if err != nil {
		t.Fatal(err)
	}
	w := &two{server: newNetns(t), world: newNetns(t), rules: t.TempDir() + "/rules", raw: map[int]int{}}
	if change != nil {
		rules = []byte(change(string(rules)))
	}
	if err := os.WriteFile(w.rules, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	w.world.sh(`ip link set lo up; ip link add w0 type veth peer name s0 netns ` + strconv.Itoa(w.server.tid) + `
ip addr add 10.77.0.2/24 dev w0; ip -6 addr add fd77::2/64 dev w0 nodad; ip link set w0 up
echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
ip route add local 198.19.0.0/16 dev lo; ip -6 route add local fd99::/32 dev lo`)
	w.server.sh(`ip link set lo up; ip addr add 10.77.0.1/24 dev s0; ip -6 addr add fd77::1/64 dev s0 nodad; ip link set s0 up
ip route add 198.18.0.0/15 via 10.77.0.2; ip -6 route add fd98::/15 via fd77::2`)
	for _, port := range []int{22, 443} {
		w.listen(t, port)
	}
	return w
}

func (w *two) load() { w.server.t.Helper(); w.server.sh("nft -f " + w.rules) }

// listen greets whoever comes, and then says what he says.
func (w *two) listen(t *testing.T, port int) {
	t.Helper()
	var l net.Listener
	var err error
	w.server.in(func() { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := c.Write([]byte("!")); err == nil {
					_, _ = io.Copy(c, c)
				}
			}()
		}
	}()
}

// dial connects from an address, and gives the connection if it was greeted in time.
func (w *two) dial(from string, port int, within time.Duration) (net.Conn, bool) {
	to := serverAddr
	if strings.Contains(from, ":") {
		to = serverAddr6
	}
	var c net.Conn
	var err error
	end := time.Now().Add(within)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Deadline: end}
	w.world.in(func() { c, err = d.Dial("tcp", net.JoinHostPort(to, strconv.Itoa(port))) })
	if err != nil {
		return nil, false
	}
	w.world.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(end); err != nil {
		return c, false
	}
	b := make([]byte, 1)
	_, err = io.ReadFull(c, b)
	return c, err == nil && b[0] == '!'
}

// Time for what must work on a loaded machine, and for what must not.
const (
	soon = time.Minute
	late = 400 * time.Millisecond
)

// echo says whether a session is alive.
func echo(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	b := []byte("x")
	if _, err := c.Write(b); err != nil {
		t.Errorf("an established session: %v", err)
	} else if _, err := io.ReadFull(c, b); err != nil {
		t.Errorf("an established session: %v", err)
	}
}

// elements counts what is in the sets whose names begin so.
func (w *two) elements(sets ...string) int {
	w.server.t.Helper()
	n := 0
	for _, s := range sets {
		var out struct {
			NFTables []struct {
				Set *struct{ Elem []any } `json:"set"`
			} `json:"nftables"`
		}
		if err := json.Unmarshal([]byte(w.server.sh("nft -j list set inet strongroom "+s)), &out); err != nil {
			w.server.t.Fatal(err)
		}
		for _, o := range out.NFTables {
			if o.Set != nil {
				n += len(o.Set.Elem)
			}
		}
	}
	return n
}

// Flags of TCP, RFC 9293.
const (
	tcpSYN = 2
	tcpRST = 4
	tcpPSH = 8
	tcpACK = 16
)

// forge sends one packet with another's address.
func (w *two) forge(from netip.Addr, sport uint16, port int, flags byte) {
	w.world.t.Helper()
	to := netip.MustParseAddr(serverAddr)
	if from.Is6() {
		to = netip.MustParseAddr(serverAddr6)
	}
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, sport)
	binary.BigEndian.PutUint16(tcp[2:], uint16(port))
	binary.BigEndian.PutUint32(tcp[4:], 1000)
	if flags&tcpACK != 0 {
		binary.BigEndian.PutUint32(tcp[8:], 4711)
	}
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	pseudo := append(append(append([]byte{}, from.AsSlice()...), to.AsSlice()...), 0, 6, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	var packet []byte
	var sa unix.Sockaddr
	family := unix.AF_INET
	if from.Is4() {
		packet = make([]byte, 20)
		packet[0], packet[8], packet[9] = 0x45, 64, 6
		copy(packet[12:], from.AsSlice())
		copy(packet[16:], to.AsSlice())
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		packet = make([]byte, 40)
		packet[0], packet[5], packet[6], packet[7] = 0x60, byte(len(tcp)), 6, 64
		copy(packet[8:], from.AsSlice())
		copy(packet[24:], to.AsSlice())
		sa = &unix.SockaddrInet6{Addr: to.As16()}
		family = unix.AF_INET6
	}
	if w.raw[family] == 0 {
		var err error
		w.world.in(func() { w.raw[family], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
		if err != nil {
			w.world.t.Fatal(err)
		}
		w.world.t.Cleanup(func() { _ = unix.Close(w.raw[family]) })
	}
	if err := unix.Sendto(w.raw[family], append(packet, tcp...), 0, sa); err != nil {
		w.world.t.Fatal(err)
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// stranger is the nth address that is forged.
func stranger(n int, six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0xfd, 0x98, byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})
}

func (w *two) conntracks() int {
	w.server.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(w.server.sh("cat /proc/sys/net/netfilter/nf_conntrack_count")))
	if err != nil {
		w.server.t.Fatal(err)
	}
	return n
}

var allSets = []string{"known4", "known6", "ssh_seen4", "ssh_seen6", "ssh_recent4", "ssh_recent6"}

// Whatever packets are forged with another's address, none of these comes into a set.
func TestForgedPacketsFillNoSet(t *testing.T) {
	for name, burst := range map[string][]byte{
		"SYN": {tcpSYN}, "SYN and ACK": {tcpSYN, tcpACK}, "ACK": {tcpACK, tcpACK, tcpACK}, "SYN, ACK with data": {tcpSYN, tcpPSH | tcpACK, tcpPSH | tcpACK},
		"SYN and RST": {tcpSYN, tcpRST}, "SYN and RST, ACK": {tcpSYN, tcpRST | tcpACK, tcpACK},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTwo(t, firewallParams(), func(rules string) string {
				return strings.Replace(rules, "\tcounter crowded {", "\tcounter seen {\n\t}\n\tcounter crowded {", 1)
			})
			w.load()
			w.server.sh("nft insert rule inet strongroom input ip saddr 198.18.0.0/16 counter name seen")
			for n := range 200 {
				for _, port := range []int{22, 443} {
					for _, flags := range burst {
						w.forge(stranger(n, false), uint16(2000+n), port, flags)
						w.forge(stranger(n, true), uint16(2000+n), port, flags)
					}
				}
			}
			if n := w.elements(allSets...); n != 0 {
				t.Errorf("%d addresses that have never answered", n)
			}
			if out := w.server.sh("nft list counter inet strongroom seen"); strings.Contains(out, "packets 0 ") {
				t.Error("no packet has come")
			}
			// Who really is there comes in, and into the sets.
			for _, from := range []string{"198.19.0.1", "fd99::1"} {
				for _, port := range []int{22, 443} {
					c, ok := w.dial(from, port, soon)
					if !ok {
						t.Fatalf("%s does not reach port %d", from, port)
					}
					echo(t, c)
				}
			}
			if n := w.elements(allSets...); n != 6 {
				t.Errorf("%d entries for two addresses", n)
			}
		})
	}
}

// The limit of SSH is by address, and what others forge in an address' name takes
// nothing of it.
func TestSSHLimit(t *testing.T) {
	w := newTwo(t, firewallParams(), nil)
	w.load()
	for n := range 60 {
		w.forge(netip.MustParseAddr("198.19.0.1"), uint16(2000+n), 22, tcpSYN)
	}
	for n := range 10 {
		// One that must wait for its turn waits ten seconds.
		if _, ok := w.dial("198.19.0.1", 22, 9*time.Second); !ok {
			t.Fatalf("the %d. connection is not let in", n+1)
		}
	}
	in := 0
	for range 6 {
		if _, ok := w.dial("198.19.0.1", 22, late); ok {
			in++
		}
	}
	if in > 4 {
		t.Errorf("%d of 6 more are let in at once", in)
	}
	if _, ok := w.dial("198.19.0.2", 22, soon); !ok {
		t.Error("another address is kept out")
	}
}

// A full set lets not everybody in, and keeps nobody out whom ssh_from names.
func TestFullSSHSet(t *testing.T) {
	small := func(rules string) string { return strings.ReplaceAll(rules, "size 65535", "size 4") }
	for name, c := range map[string]struct {
		from      []string
		least     int
		most      int
		elsewhere string
	}{
		"everybody":        {[]string{"0.0.0.0/0", "::/0"}, 8, 22, "198.19."},
		"named":            {[]string{"198.19.0.0/16", "fd99::/32"}, 40, 40, "198.19."},
		"named beside all": {[]string{"0.0.0.0/0", "198.19.0.0/16", "::/0"}, 40, 40, "198.19."},
	} {
		t.Run(name, func(t *testing.T) {
			p := firewallParams()
			p.SSHFrom = c.from
			w := newTwo(t, p, small)
			w.load()
			first, ok := w.dial("198.19.1.1", 22, soon)
			if !ok {
				t.Fatal("the first is not let in")
			}
			in := 0
			for n := range 40 {
				within := late
				if c.least == 40 {
					within = soon
				}
				if _, ok := w.dial(fmt.Sprintf("%s2.%d", c.elsewhere, n+1), 22, within); ok {
					in++
				}
			}
			if in < c.least || in > c.most {
				t.Errorf("%d of 40 are let in, want %d to %d", in, c.least, c.most)
			}
			echo(t, first)
			if out := w.server.sh("nft list counter inet strongroom ssh_full"); strings.Contains(out, "packets 0 ") {
				t.Errorf("nothing tells that it was full: %s", out)
			}
			if out := w.server.sh("nft list counter inet strongroom known_full"); strings.Contains(out, "packets 0 ") {
				t.Errorf("nothing tells that it was full: %s", out)
			}
		})
	}
}

// A flood of forged SYNs takes a bounded part of the table of connections; who is known
// gets in at once, who is not in the end, and who is there stays.
func TestSYNFlood(t *testing.T) {
	const forged = 12000
	w := newTwo(t, firewallParams(), nil)
	w.load()
	session, ok := w.dial("198.19.0.1", 443, soon)
	if !ok {
		t.Fatal("it does not answer at all")
	}
	began := time.Now()
	for n := range forged {
		w.forge(stranger(n, false), uint16(1024+n%50000), 443, tcpSYN)
	}
	took := time.Since(began)
	if n, most := w.conntracks(), 2048+1024+int(256*(took.Seconds()+1))+64; n > most || n < 2048 {
		t.Errorf("%d connections are tracked after %d SYNs in %v; at most %d are wanted", n, forged, took.Round(time.Millisecond), most)
	}
	t.Logf("%d forged SYNs in %v: %d connections are tracked", forged, took.Round(time.Millisecond), w.conntracks())
	echo(t, session)
	if _, ok := w.dial("198.19.0.1", 443, soon); !ok {
		t.Error("a known address is kept out")
	}
	if _, ok := w.dial("198.19.0.1", 22, soon); !ok {
		t.Error("a known address is kept out of SSH")
	}
	if _, ok := w.dial("198.19.0.9", 443, soon); !ok {
		t.Error("an unknown address is kept out for good")
	}
}

// Sessions are older than the rules, or than their newest loading: they stay.
func TestSessionsOutliveTheRules(t *testing.T) {
	w := newTwo(t, firewallParams(), nil)
	var all []net.Conn
	open := func(n int) {
		for range n {
			c, ok := w.dial("198.19.0.1", 22, soon)
			if !ok {
				t.Fatal("not let in")
			}
			all = append(all, c)
		}
	}
	open(5) // without any rules
	w.load()
	for _, c := range all {
		echo(t, c)
	}
	open(4)
	w.load()
	open(2)
	w.load()
	for _, c := range all {
		echo(t, c)
	}
}
