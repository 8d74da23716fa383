package front

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l, err := newLimiter(2, 3, 0, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	enter := func(addr string) time.Duration {
		leave, wait := l.enter(netip.MustParseAddr(addr))
		if leave != nil {
			leave()
		}
		return wait
	}
	for i := range 3 {
		if wait := enter("192.0.2.1"); wait != 0 {
			t.Fatalf("request %d of a burst of 3 has to wait %s", i+1, wait)
		}
	}
	if wait := enter("192.0.2.1"); wait != 500*time.Millisecond {
		t.Fatalf("the fourth request waits %s, want 500ms at 2 a second", wait)
	}
	if wait := enter("::ffff:192.0.2.1"); wait == 0 {
		t.Error("the same address, written as IPv6, has a limit of its own")
	}
	if wait := enter("192.0.2.2"); wait != 0 {
		t.Errorf("another address waits %s", wait)
	}
	now = now.Add(500 * time.Millisecond)
	if wait := enter("192.0.2.1"); wait != 0 {
		t.Errorf("after half a second it still waits %s: refused requests count", wait)
	}
	for range 3 {
		enter("2001:db8:0:1::1")
	}
	if wait := enter("2001:db8:0:1:ffff::2"); wait == 0 {
		t.Error("another address of the same /64 has a limit of its own")
	}
	if wait := enter("2001:db8:0:2::1"); wait != 0 {
		t.Errorf("another /64 waits %s", wait)
	}
}

func TestLimiterConcurrency(t *testing.T) {
	l, err := newLimiter(0, 0, 2, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr("192.0.2.1")
	first, _ := l.enter(a)
	second, _ := l.enter(a)
	if third, wait := l.enter(a); third != nil || wait <= 0 {
		t.Fatal("three at once with a limit of two")
	}
	if other, _ := l.enter(netip.MustParseAddr("192.0.2.2")); other == nil {
		t.Fatal("another address is refused")
	}
	first()
	if again, _ := l.enter(a); again == nil {
		t.Fatal("refused although one has left")
	}
	second()
}

func TestLimiterForgets(t *testing.T) {
	l, err := newLimiter(0.001, 1, 0, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("10.0.0.0")
	for range maxClients + 500 {
		ip = ip.Next()
		l.enter(ip)
	}
	if n := l.clients.Len(); n != maxClients {
		t.Fatalf("%d clients are remembered, at most %d should be", n, maxClients)
	}
}

func BenchmarkLimiter(b *testing.B) {
	l, err := newLimiter(1e9, 1e9, 100, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if leave, _ := l.enter(a); leave != nil {
			leave()
		}
	}
}
