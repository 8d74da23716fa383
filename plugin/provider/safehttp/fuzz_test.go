package safehttp

import (
	"net/netip"
	"net/url"
	"testing"
)

// An address that is allowed without an exception is public, in whatever
// notation it comes.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%x", "2606:4700::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := netip.ParseAddr(text)
		if err != nil || (Policy{}).Check(a) != nil {
			return
		}
		if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() || a.Zone() != "" {
			t.Fatalf("%s is allowed", a)
		}
	})
}

// A URL that is allowed is https with a host and nothing that hides.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://example.com/x", "http://127.0.0.1", "https://[::1]:443/", "https://a@b/", "https:opaque", "//x"} {
		f.Add(seed)
	}
	c := New(Options{})
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil || c.CheckURL(u) != nil {
			return
		}
		if u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q is allowed", text)
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && (Policy{}).Check(a) != nil {
			t.Fatalf("%q is allowed", text)
		}
	})
}

// A prefix that is accepted leaves most of the protection standing.
func FuzzPrefix(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8", "0.0.0.0/0", "::/0", "::ffff:0:0/96", "fc00::/7", "1.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParsePrefixes([]string{text})
		if err != nil {
			return
		}
		p := Policy{Allow: got}
		allowed := 0
		for _, inside := range []string{"10.0.0.1", "127.0.0.1", "192.168.0.1", "172.16.0.1", "fe80::1", "fd00::1", "::1"} {
			if p.Check(netip.MustParseAddr(inside)) == nil {
				allowed++
			}
		}
		if allowed > 1 {
			t.Fatalf("%q opens %d kinds of networks", text, allowed)
		}
	})
}
