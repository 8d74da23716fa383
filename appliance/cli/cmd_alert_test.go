package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/watch/alert"
)

// alertHook is a webhook that counts, and the arguments that lead there.
func alertHook(t *testing.T, conf string) (got *[]alert.Body, args []string) {
	t.Helper()
	got = &[]alert.Body{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b alert.Body
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		*got = append(*got, b)
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	for name, text := range map[string]string{"appliance.toml": conf, "alert-webhook": srv.URL + "/hook\n", "backup-webhook": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	return got, []string{"alert", "--config", filepath.Join(dir, "appliance.toml"), "--state", dir, "--lines", "0"}
}

func TestAlert(t *testing.T) {
	const unit = "strongroom-snapshot.service"
	got, args := alertHook(t, "[alert]\nwebhook_file = \"alert-webhook\"\n")
	for name, value := range map[string]string{"MONITOR_UNIT": unit, "MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_STATUS": "4"} {
		t.Setenv(name, value)
	}
	code, out := run(t, append(args, unit)...)
	if code != ExitOK || len(*got) != 1 {
		t.Fatalf("exit code %d, %d calls\n%s", code, len(*got), out)
	}
	if b := (*got)[0]; b.Unit != unit || b.Result != "exit-code" || b.Status != "4" || b.Host == "" {
		t.Errorf("%+v", b)
	}
	code, out = run(t, append(args, unit)...)
	if code != ExitOK || len(*got) != 1 {
		t.Errorf("again: exit code %d, %d calls", code, len(*got))
	}
	says(t, out, "not told again")
	if code, _ := run(t, append(args, "--test", unit)...); code != ExitOK || len(*got) != 2 || (*got)[1].Result != "only a test" {
		t.Errorf("a test: exit code %d, %+v", code, *got)
	}
	t.Setenv("MONITOR_SERVICE_RESULT", "timeout")
	if code, _ := run(t, append(args, unit)...); code != ExitOK || len(*got) != 3 {
		t.Errorf("another failure: exit code %d, %d calls", code, len(*got))
	}
}

// A configuration that has been spoilt must not silence the alert about it.
func TestAlertWithASpoiltConfiguration(t *testing.T) {
	got, args := alertHook(t, "[alert\n")
	t.Setenv("MONITOR_UNIT", "a.service")
	t.Setenv("MONITOR_SERVICE_RESULT", "success")
	t.Setenv("MONITOR_EXIT_STATUS", "2")
	code, out := run(t, append(args, "a.service")...)
	if code != ExitOK || len(*got) != 1 || (*got)[0].Result != "exit-code" {
		t.Errorf("exit code %d, %+v\n%s", code, *got, out)
	}
	says(t, out, "the webhook that systemd passes is told")
	if err := os.WriteFile(filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "alert-webhook"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t, append(args, "a.service")...); code != ExitUsage {
		t.Errorf("without a webhook: exit code %d\n%s", code, out)
	}
}

// A way that can't be opened must not silence the other, whichever it is.
func TestAlertWithABrokenWay(t *testing.T) {
	const mail = "\n[alert.mail]\nserver = \"127.0.0.1:1\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\n"
	for name, tc := range map[string]struct{ conf, says string }{
		"no login for the mail":        {"[alert]\nwebhook_file = \"alert-webhook\"" + mail + "credentials = \"none\"\n", "none"},
		"a malformed one for the mail": {"[alert]\nwebhook_file = \"alert-webhook\"" + mail + "credentials = \"alert-webhook\"\n", "username"},
	} {
		t.Run(name, func(t *testing.T) {
			got, args := alertHook(t, tc.conf)
			for _, want := range []string{"told of a.service in 1 ways", "not told again"} {
				code, out := run(t, append(args, "a.service")...)
				if code != ExitOperator || len(*got) != 1 || strings.Contains(out, "/hook") {
					t.Errorf("exit code %d, %d calls\n%s", code, len(*got), out)
				}
				says(t, out, want, tc.says)
			}
		})
	}
}

func TestAlertRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		conf, unit string
		code       int
		says       string
	}{
		"nobody is named":    {"", "a.service", ExitOK, "nobody is told"},
		"no unit":            {"", "nonsense", ExitUsage, "not the name of a unit"},
		"an option":          {"", "--file=x.service", ExitUsage, "unknown flag"},
		"a pattern":          {"", "*.service", ExitUsage, "not the name of a unit"},
		"bad table":          {"[alert]\nrepeat = 1\n", "a.service", ExitOK, "alert.repeat"},
		"empty credential":   {"[alert]\nwebhook_file = \"backup-webhook\"\n", "a.service", ExitOperator, "want one line with a URL"},
		"missing credential": {"[alert]\nwebhook_file = \"other\"\n", "a.service", ExitOperator, "credential"},
		"bad login": {"[alert.mail]\nserver = \"127.0.0.1:25\"\nfrom = \"a@b.c\"\nto = [\"a@b.c\"]\ncredentials = \"alert-webhook\"\n",
			"a.service", ExitOperator, "username"},
	} {
		t.Run(name, func(t *testing.T) {
			_, args := alertHook(t, tc.conf)
			code, out := run(t, append(args, tc.unit)...)
			if code != tc.code || strings.Contains(out, "/hook") {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, out)
			}
			says(t, out, tc.says)
		})
	}
}

func TestSnapshotLeavesTheAlertToTheUnit(t *testing.T) {
	got, args := alertHook(t, "[backup]\nwebhook_file = \"alert-webhook\"\n[[backup.to]]\ntype = \"dir\"\npath = \"/no/such/folder\"\n")
	conf := args[2]
	verify := []string{"snapshot", "verify", "--config", conf, "--state", t.TempDir(), "--identity", "none"}
	if code, out := run(t, append(verify, "--no-alert")...); code == ExitOK || len(*got) != 0 {
		t.Errorf("exit code %d, %d calls\n%s", code, len(*got), out)
	}
	if code, out := run(t, verify...); code == ExitOK || len(*got) != 1 {
		t.Errorf("exit code %d, %d calls\n%s", code, len(*got), out)
	}
}
