package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// The whole way of a real store, by the built program: taken into a bucket and a folder,
// verified, drilled, restored. STRONGROOM_SOAK=1 makes it a gigabyte, whose figures are in
// docs/performance.md: time, resident memory at most, and the room that it takes besides.
func TestSnapshotOfAGigabyte(t *testing.T) {
	values, resident := 40, int64(maxResident)
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		values = 1350
	}
	d := newDrillSite(t)
	fill(t, d.s, values, 800_000)
	putSecret(t, d.s.Root, "app/one", "old")
	storage := sizeOf(d.s.Layout.Raft())
	canary := d.roles[config.PolicyCanary]
	work := filepath.Join(d.dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	address := vaultAddr(d.s)
	program := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), vaulttest.Bin(t, "strongroom"), args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + d.dir}
		return cmd
	}
	for _, step := range []struct {
		what string
		cmd  *exec.Cmd
		room []string // folders that grow while it runs, beside where backups go
	}{
		{"take", program("snapshot", "take", "--config", d.config, "--address", address, "--state", d.takeState, "--role-id-file", d.roleID, "--secret-id-file", d.secretID,
			"--canary-role-id-file", canary[0], "--canary-secret-id-file", canary[1], "--epoch-file", d.s.Layout.EpochFile()), []string{d.takeState}},
		{"verify", program("snapshot", "verify", "--config", d.config, "--state", d.verifyState, "--take-state", d.takeState, "--identity", d.identity), []string{d.verifyState}},
		{"drill", d.command(t.Context(), t), []string{d.state}},
		{"restore", program("restore", "--yes", "--config", d.config, "--address", address, "--token-file", tokenFile(t, d.backupSite, d.s.RootToken),
			"--identity", d.identity, "--keep-dir", d.replace, "--epoch-file", d.s.Layout.EpochFile(), "--work-dir", work), []string{work, d.replace}},
	} {
		if step.what == "restore" {
			putSecret(t, d.s.Root, "app/one", "new")
		}
		began, before, most := time.Now(), sizeOf(step.room...), int64(0)
		peak, out, err := peakOf(step.cmd, func(pid int) { most = max(most, sizeOf(step.room...)-before+nameless(pid)) })
		if err != nil {
			t.Fatalf("%s: %v\n%s", step.what, err, out)
		}
		t.Logf("%s: %.1f s, %d MiB resident at most, %d MiB of room", step.what, time.Since(began).Seconds(), peak>>20, most>>20)
		if peak > resident {
			t.Errorf("%s: %d MiB resident, want at most %d", step.what, peak>>20, resident>>20)
		}
	}
	r := d.report(t)
	t.Logf("the storage has %d MiB, the snapshot %d MiB; the drill's RTO %.1f s; steps %v", storage>>20, r.Snapshot.Size>>20, r.RTOSeconds, r.Steps)
	if !r.Passed || verdictOf(r, "canary") != report.Pass || r.Snapshot.Size < int64(values)*700_000 {
		t.Errorf("%+v", r)
	}
	if got := secret(t, d.s.Root, "app/one"); got != "old" {
		t.Errorf("after the restore: %q", got)
	}
}

// nameless is what a process has in files that no folder knows.
func nameless(pid int) int64 {
	var sum int64
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return 0 // it has ended
	}
	for _, fd := range fds {
		info, err := os.Stat(filepath.Join(dir, fd.Name()))
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Nlink == 0 {
			sum += info.Size()
		}
	}
	return sum
}

// sizeOf is what files in folders take, in bytes. What goes while it is looked at counts
// for nothing.
func sizeOf(folders ...string) int64 {
	var sum int64
	for _, f := range folders {
		_ = filepath.WalkDir(f, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // it is gone
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				sum += info.Size()
			}
			return nil
		})
	}
	return sum
}
