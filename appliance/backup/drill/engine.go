package drill

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/vaultapi"
)

// keysMount is where the appliance mounts its engine, and where the drill's
// policy lets it look.
const keysMount = "apikeys/"

const (
	statusPage = 1000
	// sampledKeys are looked at one by one.
	sampledKeys = 25
)

// engineState is what the apikeys engine tells without any key's value.
type engineState struct {
	closed  bool
	reason  string
	version string
	acted   map[string]int64 // counters of what it did, those that are not 0
	keys    []string
	current map[string]int64 // of the sampled keys: the current version
}

// engine reads the apikeys engine and sees that it holds still.
func (r *run) engine(ctx context.Context) {
	s, err := r.engineState(ctx)
	if err != nil {
		r.check("engine", report.Fail, "compare the plugin's file with the catalog's entry: the restored Vault runs the version that the snapshot names", "%s", oneLine(err))
		return
	}
	r.rep.Found.Keys = int64(len(s.keys))
	r.judgeEngine("engine", s)
}

func (r *run) judgeEngine(name string, s *engineState) {
	switch {
	case !s.closed:
		r.check(name, report.Fail, "report this: a restored engine must wait for reconcile", "it is not fenced")
	case len(s.acted) > 0:
		r.check(name, report.Fail, "report this: a fenced engine must do nothing", "it is fenced, and yet has acted: %v", s.acted)
	default:
		r.check(name, report.Pass, "", "version %s reads %d keys; fenced (%s); nothing rotated, revoked or reaped", s.version, len(s.keys), s.reason)
	}
}

func (r *run) engineState(ctx context.Context) (*engineState, error) {
	s := &engineState{acted: map[string]int64{}, current: map[string]int64{}}
	after := ""
	for {
		data, err := r.client.ReadWith(ctx, keysMount+"status", map[string][]string{"all": {"true"}, "limit": {fmt.Sprint(statusPage)}, "after": {after}})
		if err != nil {
			return nil, fmt.Errorf("read %sstatus: %w", keysMount, err)
		}
		if !data.Has("fence") {
			return nil, fmt.Errorf("read %sstatus: it has no fence: is it another engine?", keysMount)
		}
		page, err := s.read(data)
		if err != nil {
			return nil, fmt.Errorf("read %sstatus: %w", keysMount, err)
		}
		s.keys = append(s.keys, slices.Sorted(maps.Keys(page))...)
		if !data.Has("next") {
			break
		}
		next, err := data.Text("next")
		if err == nil && next <= after {
			err = fmt.Errorf("after %q it goes on with %q: not every key would be counted", after, next)
		}
		if err != nil {
			return nil, fmt.Errorf("read %sstatus: %w", keysMount, err)
		}
		after = next
	}
	for _, name := range s.keys[:min(len(s.keys), sampledKeys)] {
		data, err := r.client.ReadWith(ctx, keysMount+"versions/"+name, nil)
		if err != nil {
			return nil, fmt.Errorf("read %sversions/%s: %w", keysMount, name, err)
		}
		// Both are there for a key that waits for its import too: 0, and none.
		if _, err = data.Map("versions"); err == nil {
			s.current[name], err = data.Number("version")
		}
		if err != nil {
			return nil, fmt.Errorf("read %sversions/%s: %w", keysMount, name, err)
		}
	}
	return s, nil
}

// read takes a page of the engine's status and gives the keys on it.
func (s *engineState) read(data vaultapi.Data) (keys vaultapi.Data, err error) {
	fence, err := data.Map("fence")
	if err != nil {
		return nil, err
	}
	if s.closed, err = fence.Bool("closed"); err != nil {
		return nil, err
	}
	s.reason, _ = fence["reason"].(string) // an open one has none
	if s.version, err = data.Text("version"); err != nil {
		return nil, err
	}
	for _, counter := range []string{"rotations", "revocations", "reaped"} {
		n, err := data.Number(counter)
		if err != nil {
			return nil, err
		}
		if n != 0 {
			s.acted[counter] = n
		}
	}
	return data.Map("keys")
}
