package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/kvexport"
)

// Each fault has its exit code, and says what to do.
func TestKVErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		hint string
	}{
		{nil, ExitOK, ""},
		{kvexport.ErrWrongIdentity, ExitOperator, "--identity"},
		{kvexport.ErrDamaged, ExitDrift, "another copy"},
		{kvexport.ErrConflict, ExitDrift, "--force"},
		{kv.ErrChanged, ExitFailed, "run it again"},
		{&vaultapi.Error{Status: 403}, ExitOperator, ""},
		{errors.New("anything else"), ExitFailed, ""},
	} {
		err := tt.err
		if err != nil {
			err = fmt.Errorf("secret/a: %w", err)
		}
		var b bytes.Buffer
		if code := Report(&b, kvError(err)); code != tt.code || !strings.Contains(b.String(), tt.hint) || tt.hint != "" && !strings.Contains(b.String(), "→") {
			t.Errorf("%v: exit code %d, want %d and %q:\n%s", tt.err, code, tt.code, tt.hint, b.String())
		}
	}
}

// KV takes names that no file of ours has; what leads elsewhere is refused.
func TestKVPaths(t *testing.T) {
	for p, ok := range map[string]bool{
		"odd/with space": true, "a/b/": true, "ünï/%41": true, "a*b/c?": true,
		"": false, "/a": false, "a//b": false, "a/../b": false, ".": false, "a/\x00": false, "a\nb": false,
	} {
		if err := kvPath(p); (err == nil) != ok {
			t.Errorf("%q: %v", p, err)
		}
	}
}
