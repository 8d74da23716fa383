package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/watch/doctor"
	"strongroom.example/appliance/watch/evidence"
)

// A spoilt configuration and a survey that can't be used must not keep the
// daily doctor from its report, nor let it end content.
func TestDoctorReportsWithoutASurvey(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root's report is kept")
	}
	state := t.TempDir()
	spoilt, none := filepath.Join(state, "appliance.toml"), filepath.Join(state, "network.json")
	if err := os.WriteFile(spoilt, []byte("[tls\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run(t, "doctor", "--config", spoilt, "--network", none, "--states", state, "--address", "http://127.0.0.1:1")
	if code != ExitDrift {
		t.Errorf("it ends content:\n%s", out)
	}
	if _, err := os.Stat(doctor.LastPath(evidence.Below(state).Doctor)); err != nil {
		t.Errorf("no report: %v\n%s", err, out)
	}
	says(t, out, "not seen: /proc/net", "not among what was seen of the network")
	o := doctorOptions{network: none, unsurveyed: os.ErrNotExist}
	if err := o.incomplete(doctor.Subject{}); err == nil {
		t.Error("content without a survey")
	}
	o.unsurveyed = nil
	if err := o.incomplete(doctor.Subject{NoConfig: os.ErrPermission}); err == nil {
		t.Error("content without a configuration")
	}
	if err := o.incomplete(doctor.Subject{}); err != nil {
		t.Errorf("not content: %v", err)
	}
}

func TestDoctorSurveysWithoutAConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "network.json")
	if code, out := run(t, "doctor", "network", "--config", filepath.Join(t.TempDir(), "none.toml"), file); code != ExitOK {
		t.Errorf("exit code %d\n%s", code, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := doctor.Surveyed(doctor.OSMachine{}, data); err != nil {
		t.Error(err)
	}
}

// How it ends: what has failed comes first, then what was not seen at all, then
// what the timer's doctor could not use.
func TestDoctorEnds(t *testing.T) {
	fails, blind := doctor.Item{ID: "swap", Verdict: evidence.Fail}, doctor.Item{ID: "leaks", Verdict: evidence.Skip, Blind: true}
	well, skipped := doctor.Item{ID: "ssh", Verdict: evidence.Pass}, doctor.Item{ID: "clock", Verdict: evidence.Skip}
	for name, c := range map[string]struct {
		items      []doctor.Item
		unsurveyed error
		code       int
		says       string
	}{
		"well":                       {[]doctor.Item{well}, nil, ExitOK, ""},
		"something was skipped":      {[]doctor.Item{well, skipped}, nil, ExitOK, ""},
		"one saw nothing":            {[]doctor.Item{well, blind}, nil, ExitDrift, "nothing was seen of 1 of 2 items: leaks"},
		"one saw nothing, and why":   {[]doctor.Item{blind}, os.ErrPermission, ExitDrift, "--network: permission denied"},
		"one failed, one was blind":  {[]doctor.Item{fails, blind}, nil, ExitDrift, "1 of 2 items failed"},
		"no survey, and all is seen": {[]doctor.Item{well}, os.ErrPermission, ExitFailed, "--network"},
	} {
		t.Run(name, func(t *testing.T) {
			o := doctorOptions{network: "x", unsurveyed: c.unsurveyed}
			err := o.judge(doctor.Subject{}, doctor.Report{Items: c.items})
			var e *Error
			switch {
			case err == nil && c.code != ExitOK, err != nil && !errors.As(err, &e), err != nil && e.Code != c.code:
				t.Fatalf("%v, want code %d", err, c.code)
			case err != nil && !strings.Contains(err.Error(), c.says):
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
