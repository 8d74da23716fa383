package alert

import "testing"

func TestFailed(t *testing.T) {
	for name, tc := range map[string]struct {
		env                        map[string]string
		result, status, invocation string
	}{
		"nothing is told": {nil, "failed", "", ""},
		"of another unit": {map[string]string{"MONITOR_UNIT": "b.service", "MONITOR_SERVICE_RESULT": "timeout", "MONITOR_INVOCATION_ID": "i"}, "failed", "", ""},
		"of this one": {map[string]string{"MONITOR_UNIT": "a.service", "MONITOR_SERVICE_RESULT": "timeout", "MONITOR_EXIT_STATUS": "TERM", "MONITOR_INVOCATION_ID": "i"},
			"timeout", "TERM", "i"},
		"as systemd 252 does": {map[string]string{"MONITOR_UNIT": "a.service", "MONITOR_SERVICE_RESULT": "success", "MONITOR_EXIT_STATUS": "2"}, "exit-code", "2", ""},
		"without a result":    {map[string]string{"MONITOR_UNIT": "a.service", "MONITOR_EXIT_STATUS": "2"}, "failed", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, invocation := Failed("a.service", "vault-1", event.At, func(name string) string { return tc.env[name] })
			if e.Result != tc.result || e.Status != tc.status || invocation != tc.invocation {
				t.Errorf("%q, %q, %q", e.Result, e.Status, invocation)
			}
			if e.Unit != "a.service" || e.Host != "vault-1" || !e.At.Equal(event.At) {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestIsUnit(t *testing.T) {
	for name, want := range map[string]bool{
		"strongroom-snapshot.service": true, "strongroom-alert@a\\x2db.service": true, "vault.service": true,
		"": false, "vault": false, "--file=x.service": false, "*.service": false, "a b.service": false, "a\n.service": false,
	} {
		if got := IsUnit(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
