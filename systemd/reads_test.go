package systemd

import (
	"slices"
	"testing"

	"strongroom.example/config/machine"
)

func TestDaemons(t *testing.T) {
	want := []string{machine.UnitKMS, machine.UnitVault, machine.UnitFront, machine.UnitMetrics}
	if got := Daemons(); !slices.Equal(got, want) {
		t.Errorf("daemons = %q, want %q", got, want)
	}
}

// What a daemon reads when it starts, each with what its drop-in names.
func TestReads(t *testing.T) {
	for unit, c := range map[string]struct {
		dropIn []byte
		want   []string
	}{
		machine.UnitKMS: {KMSDropIn(7), []string{machine.Program, machine.MasterKeyFile}},
		machine.UnitVault: {nil, []string{machine.VaultProgram, machine.VaultHCL, machine.EpochFile,
			machine.TLSDir + "/server.crt", machine.TLSDir + "/server.key", machine.TLSDir + "/ca.crt"}},
		machine.UnitFront: {FrontACMEDropIn("/root/100% ca.crt", []string{"acme-eab"}), []string{machine.Program, machine.FrontTOML,
			machine.TLSDir + "/front.crt", machine.TLSDir + "/front.key", machine.TLSDir + "/ca.crt", "/root/100% ca.crt", machine.CredentialDir + "/acme-eab"}},
		machine.UnitMetrics: {nil, []string{machine.Program, machine.CredentialFile(machine.CredMonitorRoleID), machine.CredentialFile(machine.CredMonitorSecretID)}},
	} {
		text, err := Unit(unit)
		if err != nil {
			t.Fatal(err)
		}
		if got := Reads(text, c.dropIn); !slices.Equal(got, c.want) {
			t.Errorf("%s reads %q, want %q", unit, got, c.want)
		}
	}
	odd := []byte("# ExecStart=/bin/no\nExecStart=-+/bin/yes --file /etc/strongroom/a --other=/etc/strongroom/b /tmp/c\nEnvironment=X=/run/no\nLoadCredential=inline\nno line\n")
	if got, want := Reads(odd, odd), []string{"/bin/yes", "/etc/strongroom/a", "/etc/strongroom/b"}; !slices.Equal(got, want) {
		t.Errorf("reads %q, want %q", got, want)
	}
}
