package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/config/machine"
)

// waitsEnded tells of a restore that was killed before Vault had the snapshot, or
// of which nobody knows whether it had.
func waitsEnded(_ context.Context, e *exam) {
	b, err := e.Machine.ReadFile(machine.RestoreWaits)
	if errors.Is(err, fs.ErrNotExist) {
		e.yes(machine.RestoreWaits, "not there: each restore came to its end")
		return
	}
	if err != nil {
		e.unseen(machine.RestoreWaits, err)
		return
	}
	w, err := restore.ParseWaits(b)
	if err != nil {
		e.fail("look at max_wait in apikeys/config, then rm "+machine.RestoreWaits, "%s: %v", machine.RestoreWaits, err)
		return
	}
	switch {
	case w.Epoch == "":
	case w.HandedOver:
		e.fail("look at Vault; vault write -f apikeys/reconcile until done is true, then rm "+machine.RestoreWaits,
			"a restore was stopped before its end: nobody knows whether Vault has taken the snapshot, the epoch stays raised")
	default:
		e.fail("run the restore again, which takes it back, or write what was in "+machine.RestoreWaits+" into "+machine.EpochFile,
			"a restore was stopped after it had raised the epoch, and before Vault was given anything")
	}
	for _, mount := range slices.Sorted(maps.Keys(w.MaxWait)) {
		e.fail(fmt.Sprintf("vault write %sconfig max_wait=%d, then rm %s", mount, w.MaxWait[mount], machine.RestoreWaits),
			"a restore was stopped before its end: reads at %s wait no more, max_wait was %d s", mount, w.MaxWait[mount])
	}
	if len(w.MaxWait) == 0 && w.Epoch == "" {
		e.yes(machine.RestoreWaits, "no mount waits for the end of a restore")
	}
}
