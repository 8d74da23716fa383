package machine

import "testing"

func TestUnitKinds(t *testing.T) {
	for name, want := range map[string]struct{ ours, backup bool }{
		UnitVault:                       {true, false},
		UnitVault + ".d":                {false, false},
		UnitSnapshotTimer:               {true, true},
		UnitSnapshotSoon:                {true, true},
		UnitVerify:                      {true, true},
		UnitDrillFetch:                  {true, true},
		UnitAlert:                       {true, false},
		UnitFirewallRollback + ".timer": {true, false},
		UnitNftables:                    {false, false},
		"vault-agent.service":           {false, false},
	} {
		if IsUnit(name) != want.ours || IsBackupUnit(name) != want.backup {
			t.Errorf("%s: ours %t, backup %t", name, IsUnit(name), IsBackupUnit(name))
		}
	}
}

func TestPlaces(t *testing.T) {
	for got, want := range map[string]string{
		DropInPath(UnitKMS, "vault-uid"):              "/etc/systemd/system/strongroom-kms.service.d/vault-uid.conf",
		PluginFile("0.2.0"):                           "vault-plugin-secrets-apikeys-0.2.0",
		CredentialFile(CredMasterKey):                 MasterKeyFile,
		CredentialFile(CredRoleID(JobDoctor)):         "/etc/strongroom/credentials/doctor-role-id",
		CredentialsOf(UnitFront) + "/" + CredFrontCrt: "/run/credentials/strongroom-front.service/front.crt",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
