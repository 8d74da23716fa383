package bench

import (
	"fmt"
	"testing"
	"time"

	"strongroom/appliance/proc"
	"strongroom/test/vaulttest"
)

// What a client in a long poll costs the plugin's process.
func BenchmarkLongPollMemory(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	// In the first seconds after its initialisation Vault wants its state lock
	// once for itself, and waits would keep it; a restarted one does not.
	s.KillAndWait(b)
	const clients = 5000
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken, conns: clients}
	for version := 1; b.Loop(); version++ {
		plugin := proc.ChildOf(s.Process.PID())
		before, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := l.run(b.Context(), request{path: fmt.Sprintf("apikeys/creds/app/production/x?if_version=%d&wait=60", version), status: 200}, time.Millisecond)
			done <- err
		}()
		waiting := func() string {
			st, err := s.Root.API().Logical().ReadWithContext(b.Context(), "apikeys/status")
			if err != nil {
				b.Fatal(err)
			}
			return fmt.Sprint(st.Data["waiting_reads"])
		}
		for deadline := time.Now().Add(50 * time.Second); waiting() != fmt.Sprint(clients); {
			select {
			case err := <-done:
				b.Fatalf("a client did not wait: %v", err)
			default:
			}
			if time.Now().After(deadline) {
				b.Fatalf("only %s of %d clients wait", waiting(), clients)
			}
			<-time.After(100 * time.Millisecond)
		}
		after, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(after-before)/clients/1024, "KiB/client")
		rotated := time.Now()
		write(b, s, "apikeys/rotate/app/production/x", map[string]any{"force": true})
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(rotated).Milliseconds()), "ms-until-all-know")
	}
}
