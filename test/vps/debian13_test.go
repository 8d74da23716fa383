package vps_test

import (
	"os"
	"strings"
	"testing"
)

// TestInstallOnDebian13 is TestInstall on the release after the one that the
// other tests use: another systemd, another nftables, another sshd.
func TestInstallOnDebian13(t *testing.T) {
	t.Parallel()
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("a second life of a machine: STRONGROOM_SOAK=1 asks for it")
	}
	m := bootSuite(t, "deb13", "trixie")
	if v := m.sh(t, "systemctl --version | head -n1; cat /etc/debian_version"); !strings.Contains(v, "systemd 257") || !strings.Contains(v, "13") {
		t.Fatalf("not Debian 13: %s", v)
	}
	aLife(t, m)
}
