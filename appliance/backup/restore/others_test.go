package restore

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"strongroom.example/appliance/backup/snapshot"
)

// A copy of a cluster that still answers takes the cluster's nodes with it.
func TestOthersAreGone(t *testing.T) {
	answers, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answers.Close() }()
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	here, dead := answers.Addr().String(), gone.Addr().String()
	two := []snapshot.Server{{ID: "node-1", Address: "10.0.0.1:8201"}, {ID: "node-2", Address: here}}
	tests := []struct {
		name    string
		nodes   []snapshot.Server
		of      []snapshot.Server
		refused bool
	}{
		{"its own nodes", two, two, false},
		{"its own, when it was smaller", two, two[1:], false},
		{"one that answers", two, []snapshot.Server{{ID: "node-9", Address: here}}, true},
		{"one that answers under the name of a node", two, []snapshot.Server{{ID: "node-1", Address: here}}, true},
		{"one of several", two, append([]snapshot.Server{{ID: "node-8", Address: dead}, {ID: "node-9", Address: here}}, two...), true},
		{"one that is gone", two, []snapshot.Server{{ID: "node-9", Address: dead}}, false},
		{"an archive that names none", two, nil, false},
		{"into one that is alone", two[:1], []snapshot.Server{{ID: "node-9", Address: here}}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := &fakeVault{nodes: tt.nodes}
			c := v.start(t)
			whole := checked(t)
			whole.Archive.Servers = tt.of
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := Run(ctx, Options{Snapshot: whole, Vault: c, Patience: time.Minute})
			if errors.Is(err, ErrOtherAnswers) != tt.refused || v.restored == tt.refused {
				t.Errorf("restored: %t, %v", v.restored, err)
			}
			if tt.refused && len(v.calls) > 0 {
				t.Errorf("what was done before it was refused: %v", v.calls)
			}
		})
	}
}
