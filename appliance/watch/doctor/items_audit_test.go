package doctor

import (
	"net/http"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/evidence"
)

// With a full disk under its audit logs Vault serves nobody, and tells neither
// why nor that in its health. That is a fault, and not one item less to look at.
func TestNoAuditDeviceCanWrite(t *testing.T) {
	for name, c := range map[string]struct {
		status        int
		verdict, says string
	}{
		"internal error": {http.StatusInternalServerError, evidence.Fail, "answers 500 to everybody"},
		"no rights":      {http.StatusForbidden, evidence.Skip, "not asked"},
	} {
		t.Run(name, func(t *testing.T) {
			_, s := healthy(t)
			s.NoLogin = &vaultapi.Error{Status: c.status, Errors: []string{"internal error"}}
			i, ok := Examine(t.Context(), *s).Item("audit-devices")
			if !ok || i.Verdict != c.verdict || !hasReason(i, c.says) {
				t.Errorf("%q, want %q: %+v", i.Verdict, c.verdict, i.Reasons)
			}
		})
	}
}
