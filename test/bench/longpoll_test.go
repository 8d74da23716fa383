package bench

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

// What a client in a long poll costs the plugin's process, how long a rotation
// takes to be answered while all of them wait, and how long until they know.
func BenchmarkLongPoll(b *testing.B) {
	s := vaulttest.New(b)
	s.MountAPIKeys(b)
	setUpKey(b, s)
	// In the first seconds after its initialisation Vault wants its state lock
	// once for itself, and waits would keep it; a restarted one does not.
	s.KillAndWait(b)
	const clients = 10_000
	l := load{socket: s.Layout.VaultSocket(), token: s.RootToken}
	for version := 1; b.Loop(); version++ {
		plugin, err := vaulttest.ChildNamed(s.Process.PID(), engine)
		if err != nil {
			b.Fatal(err)
		}

		before, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		c := l.crowd(request{path: fmt.Sprintf("apikeys/creds/app/production/x?if_version=%d&wait=60", version), status: 200}, clients)
		awaitWaiting(b, s, c, clients)
		after, err := proc.Resident(plugin)
		if err != nil {
			b.Fatal(err)
		}
		rotated := time.Now()
		write(b, s, "apikeys/rotate/app/production/x", map[string]any{"force": true})
		answered := time.Since(rotated)
		told, err := c.wait(rotated)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(after-before)/clients/1024, "KiB/client")
		b.ReportMetric(float64(answered.Milliseconds()), "ms-until-rotate-is-answered")
		b.ReportMetric(float64(told[len(told)/2].Milliseconds()), "ms-until-half-know")
		b.ReportMetric(float64(told[len(told)-1].Milliseconds()), "ms-until-all-know")
	}
}

func awaitWaiting(b *testing.B, s *vaulttest.Server, c *crowd, n int) {
	b.Helper()
	deadline := time.Now().Add(50 * time.Second)
	waiting := "none"
	for waiting != fmt.Sprint(n) {
		// While thousands connect, the listen queue may have no room for us.
		if st, err := vaulttest.API(s.Root).Logical().ReadWithContext(b.Context(), "apikeys/status"); err == nil {
			waiting = fmt.Sprint(st.Data["waiting_reads"])
		}
		if err := c.fault(); err != nil {
			b.Fatalf("a client did not wait: %v", err)
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s of %d clients wait", waiting, n)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// crowd is clients that each have one request under way.
type crowd struct {
	done sync.WaitGroup
	mu   sync.Mutex
	at   []time.Time
	err  error
}

// crowd sends r over n connections, each for itself.
func (l load) crowd(r request, n int) *crowd {
	c := &crowd{}
	for range n {
		c.done.Go(func() {
			err := l.once(r)
			c.mu.Lock()
			defer c.mu.Unlock()
			if err != nil && c.err == nil {
				c.err = err
			}
			c.at = append(c.at, time.Now())
		})
	}
	return c
}

func (l load) once(r request) error {
	conn, err := l.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, l.text(r)); err != nil {
		return err
	}
	return r.judge(bufio.NewReaderSize(conn, 1024))
}

// fault is the first client's fault, or that one has its answer already.
func (c *crowd) fault() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && len(c.at) > 0 {
		return fmt.Errorf("%d have an answer", len(c.at))
	}
	return c.err
}

// wait gives the times from began to each answer, sorted.
func (c *crowd) wait(began time.Time) ([]time.Duration, error) {
	c.done.Wait()
	var out []time.Duration
	for _, at := range c.at {
		out = append(out, at.Sub(began))
	}
	slices.Sort(out)
	return out, c.err
}
