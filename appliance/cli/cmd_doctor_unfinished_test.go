package cli

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/operation"
	"strongroom.example/config/machine"
)

// What was killed is told with the one command that ends it, unless somebody is at it.
func TestUnfinishedIsTold(t *testing.T) {
	lock := t.TempDir() + "/lock"
	read := func(p string) ([]byte, error) {
		if p != machine.UpgradeRecord {
			return nil, fs.ErrNotExist
		}
		return []byte(`{"phase":"applying"}`), nil
	}
	err := unfinished(lock, read)
	var e *Error
	if !errors.As(err, &e) || e.Code != ExitOperator || !strings.Contains(err.Error(), "while applying") || !strings.Contains(e.Hint, "strongroom-installer upgrade") {
		t.Errorf("error = %v", err)
	}
	end, err := operation.Begin(lock, "upgrade", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := unfinished(lock, read); err != nil {
		t.Errorf("somebody is at it: %v", err)
	}
}
