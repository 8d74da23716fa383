package cli

import (
	"os"
	"path/filepath"
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
	if code == ExitOK {
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
