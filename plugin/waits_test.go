package apikeys

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// patience ends what hangs, before the minute that reads wait here.
const patience = 50 * time.Second

// startWait starts a read that waits and gives a channel with its answer.
func (w *world) startWait(data map[string]any) <-chan *logical.Response {
	out := make(chan *logical.Response, 1)
	before := w.b.waiters.size()
	go func() {
		resp, err := w.do(opRead, "creds/k", data)
		if err != nil {
			w.t.Errorf("a waiting read: %v", err)
		}
		out <- resp
	}()
	for w.b.waiters.size() == before && len(out) == 0 {
		runtime.Gosched()
	}
	return out
}

func answer(t *testing.T, ch <-chan *logical.Response) *logical.Response {
	t.Helper()
	select {
	case resp := <-ch:
		return resp
	case <-time.After(patience):
		t.Fatal("the read is still waiting")
		return nil
	}
}

func TestWaitEndsWithTheRotation(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(w *world)
		want int
	}{
		"rotated by hand":   {func(w *world) { w.write("rotate/k", nil) }, 2},
		"rotated when due":  {func(w *world) { w.clock.advance(100 * day); w.tick() }, 2},
		"compromised":       {func(w *world) { w.write("rotate/k", map[string]any{"compromised": true}) }, 2},
		"on another node":   {func(w *world) { w.otherNodeRotates(); w.b.Invalidate(context.Background(), "key/k") }, 2},
		"spurious wake-ups": {func(w *world) { w.b.waiters.notify("k"); w.write("rotate/k", nil) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.localKey("k", nil)
			ch := w.startWait(map[string]any{"wait": 60, "if_version": 1})
			change.do(w)
			if got := answer(t, ch).Data["version"]; got != change.want {
				t.Errorf("version %v, want %d", got, change.want)
			}
			if n := w.b.waiters.size(); n != 0 {
				t.Errorf("%d reads wait", n)
			}
		})
	}
}

// otherNodeRotates writes a new version as another node would.
func (w *world) otherNodeRotates() {
	w.t.Helper()
	st := store{w.storage}
	rec, err := st.key(context.Background(), "k")
	if err != nil {
		w.t.Fatal(err)
	}
	now := w.clock.Wall()
	next := rec.clone()
	if err := next.Life.Add(versionPending(2, now)); err != nil {
		w.t.Fatal(err)
	}
	next.setValues(2, map[string]string{"key": "from elsewhere"})
	if err := next.Life.Promote(2, now, day, true); err != nil {
		w.t.Fatal(err)
	}
	if err := st.putKey(context.Background(), next); err != nil {
		w.t.Fatal(err)
	}
}

func TestWaitThatNothingEnds(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	t.Run("its time is over", func(t *testing.T) {
		// The clock by which the wait ends is the test's, the timer is real.
		ch := w.startWait(map[string]any{"wait": 1, "if_version": 1})
		w.clock.advance(2 * time.Second)
		if got := answer(t, ch).Data[logical.HTTPStatusCode]; got != 304 || w.b.waiters.size() != 0 {
			t.Errorf("status %v, %d wait", got, w.b.waiters.size())
		}
	})
	t.Run("nothing to wait for", func(t *testing.T) {
		if got := w.read("creds/k", map[string]any{"wait": 60, "if_version": 7})["version"]; got != 1 {
			t.Errorf("version %v", got)
		}
	})
	t.Run("the client is gone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = w.b.HandleRequest(ctx, &logical.Request{Operation: opRead, Path: "creds/k", Storage: w.storage,
				Data: map[string]any{"wait": 60, "if_version": 1}})
		}()
		for w.b.waiters.size() == 0 {
			runtime.Gosched()
		}
		cancel()
		<-done
		if n := w.b.waiters.size(); n != 0 {
			t.Errorf("%d reads wait", n)
		}
	})
	t.Run("too many wait", func(t *testing.T) {
		w.write("config", map[string]any{"max_waiters": 1})
		first := w.startWait(map[string]any{"wait": 60, "if_version": 1})
		// A client that asks at once again is slowed down, and told when to come.
		held := 0
		w.b.waiters.pause = func(_ context.Context, d time.Duration) { held += int(d / time.Second) }
		turnedAway := func(when string) {
			held = 0
			resp, err := w.do(opRead, "creds/k", map[string]any{"wait": 60, "if_version": 1})
			if err != nil || resp.Data[logical.HTTPStatusCode] != 304 || held != 1 {
				t.Errorf("%s: %v %v, held for %d s; want a 304 after a second", when, err, resp, held)
			}
			if h := resp.Headers; h["Retry-After"][0] != "5" || h["Preference-Applied"][0] != "wait=0" {
				t.Errorf("%s: %v", when, h)
			}
			resp, err = w.do(opRead, "creds/k", map[string]any{"wait": 60, "if_version": 7})
			if err != nil || held != 1 || resp.Headers["Retry-After"] != nil {
				t.Errorf("%s, who has another version: %v %v, held for %d s; want the key at once", when, err, resp, held)
			}
		}
		turnedAway("one too many")
		// The key changes in that moment: the answer is the new one, and says it all in its body.
		w.b.waiters.pause = func(context.Context, time.Duration) { w.write("rotate/k", nil) }
		resp, err := w.do(opRead, "creds/k", map[string]any{"wait": 60, "if_version": 1})
		if err != nil || resp.Data["version"] != 2 || resp.Data["wait"] != int64(0) || resp.Data["retry_after"] != int64(5) {
			t.Errorf("rotated meanwhile: %v %v", err, resp)
		}
		answer(t, first)
		w.b.waiters.pause = func(_ context.Context, d time.Duration) { held += int(d / time.Second) }
		w.write("config", map[string]any{"max_wait": 0})
		w.write("rollback/k", map[string]any{"version": 1})
		turnedAway("nobody may")
	})
}

func TestMaxWaitZeroEndsAThousandWaitsAtOnce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	const n = 1000
	var all sync.WaitGroup
	for range n {
		all.Add(1)
		go func() {
			defer all.Done()
			resp, err := w.do(opRead, "creds/k", map[string]any{"wait": 60, "if_version": 1})
			if err != nil || resp.Data[logical.HTTPStatusCode] != 304 {
				t.Errorf("%v %v, want a 304", err, resp)
			}
		}()
	}
	for w.b.waiters.size() < n {
		runtime.Gosched()
	}
	w.write("config", map[string]any{"max_wait": 0})
	started := time.Now()
	all.Wait()
	// Left alone, they would wait for a minute.
	took := time.Since(started)
	t.Logf("they ended within %s", took)
	if took > patience {
		t.Errorf("it took %s", took)
	}
	if resp, err := w.do(opRead, "creds/k", map[string]any{"wait": 60, "if_version": 1}); err != nil || resp.Data[logical.HTTPStatusCode] != 304 {
		t.Errorf("a new wait: %v %v, want a 304 at once", err, resp)
	}
}

func TestUnloadEndsWaits(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	ch := w.startWait(map[string]any{"wait": 60, "if_version": 1})
	w.remoteKey("remote", nil)
	w.b.Cleanup(context.Background())
	answer(t, ch)
	if n := len(w.remote.alive()); n != 1 {
		t.Errorf("unloading the mount revoked a key: %d are alive", n)
	}
}

func TestUnloadDoesNotWaitForASlowProviderForEver(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "1d"})
	called, release := make(chan struct{}), make(chan struct{})
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && !after {
			close(called)
			<-release
		}
		return nil
	})
	w.clock.advance(2 * day)
	w.b.tick(context.Background())
	<-called
	w.b.patience = time.Millisecond
	slow := w.b
	slow.Cleanup(context.Background())
	close(release)
	slow.running.Wait()
	w.remote.setFault(nil)
	w.start()
	for range 3 {
		w.pass(time.Minute)
	}
	if err := settled(w, remoteCaps()); err != nil {
		t.Error(err)
	}
}

func TestCrowdIsToldWhole(t *testing.T) {
	for name, end := range map[string]func(w *waiters){
		"bit by bit":           func(w *waiters) { w.notify("k") },
		"twice":                func(w *waiters) { w.notify("k"); w.notify("k") },
		"all at once":          func(w *waiters) { w.endAll() },
		"at once, after a bit": func(w *waiters) { w.notify("k"); w.endAll() },
		"at the end":           func(w *waiters) { w.notify("k"); w.closeAll() },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 3*crowdSize + 1
			w := newWaiters()
			var told []<-chan struct{}
			for range n {
				ch, leave, ok := w.join("k", n)
				if !ok {
					t.Fatal("no room")
				}
				defer leave()
				told = append(told, ch)
			}
			other, leave, _ := w.join("other", n+1)
			defer leave()
			end(w)
			for i, ch := range told {
				select {
				case <-ch:
				case <-time.After(patience):
					t.Fatalf("nobody told number %d", i)
				}
			}
			select {
			case <-other:
				if name == "bit by bit" || name == "twice" {
					t.Error("who waits for another key was told")
				}
			default:
			}
		})
	}
}

func TestEndOfWaitsOvertakesACrowd(t *testing.T) {
	const n = 100 * crowdSize // bit by bit they would take a second
	w := newWaiters()
	var told []<-chan struct{}
	for range n {
		ch, leave, _ := w.join("k", n)
		defer leave()
		told = append(told, ch)
	}
	w.notify("k")
	w.endAll()
	for i, ch := range told {
		select {
		case <-ch:
		default:
			t.Fatalf("number %d still waits", i)
		}
	}
}
