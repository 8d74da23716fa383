package credential

import (
	"errors"
	"testing"
)

// What systemd 252 says was heard (TestConformance), and 257 on Debian 13 with
// swtpm; others' words are from their sources and from logs of units.
func TestDiagnose(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"252, lockout, open", "WARNING:esys:src/tss2-esys/api/Esys_Load.c:324:Esys_Load_Finish() Received TPM Error\nERROR:esys:src/tss2-esys/api/Esys_Load.c:112:Esys_Load() Esys Finish ErrorCode (0x00000921)\nTPM2 device is in dictionary attack lockout mode.", ErrLockout},
		{"252, lockout, seal", "Failed to generate HMAC key in TPM: tpm:warn(2.0): authorizations for objects subject to DA protection are not allowed at this time because the TPM is in DA lockout mode", ErrLockout},
		{"252, PCR 7", "Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.", ErrRefused},
		{"252, no PCR", "TPM2 PCR bank invalid or not supported", ErrRefused},
		{"252, another TPM", "Failed to load HMAC key in TPM: tpm:parameter(1):integrity check failed", ErrRefused},
		{"257, another TPM", "libvirtd.service: TPM key integrity check failed. Key most likely does not belong to this TPM.\nlibvirtd.service: Failed to set up credentials: Object is remote", ErrRefused},
		{"258, another TPM", "libvirtd.service: Key invalid or does not belong to current TPM.", ErrRefused},
		{"257, lockout, open", "ERROR:esys:src/tss2-esys/api/Esys_Load.c:112:Esys_Load() Esys Finish ErrorCode (0x00000921)\nFailed to unseal secret using TPM2: No locks available", ErrLockout},
		{"257, lockout, seal", "ERROR:esys:src/tss2-esys/api/Esys_Create.c:134:Esys_Create() Esys Finish ErrorCode (0x00000921)\nFailed to seal to TPM2: State not recoverable", ErrLockout},
		{"257, PCR 7", "Failed to unseal secret using TPM2: Operation not permitted", ErrRefused},
		{"257, another TPM, its code alone", "ERROR:esys:src/tss2-esys/api/Esys_Load.c:112:Esys_Load() Esys Finish ErrorCode (0x000001df)\nFailed to unseal secret using TPM2: State not recoverable", ErrRefused},
		{"257, no TPM", "ERROR:tcti:src/tss2-tcti/tcti-device.c:452:Tss2_Tcti_Device_Init() Failed to open specified TCTI device file /dev/tpmrm0: No such file or directory", ErrTPMGone},
		{"257, no TPM on the network", "ERROR:tcti:src/tss2-tcti/tcti-swtpm.c:617:Tss2_Tcti_Swtpm_Init() Cannot connect to swtpm TPM socket", ErrTPMGone},
		{"255, policy", "Failed to unseal data: tpm:session(1):a policy check failed", ErrRefused},
		{"252, no host key", "Failed to determine local credential key: No such file or directory", ErrHostKey},
		{"255, no host key", "Failed to determine local credential host secret: No such file or directory", ErrHostKey},
		{"252, other host key", "Decryption failed (incorrect key?): error:00000000:lib(0)::reason(0)", ErrHostKey},
		{"252, no TPM", "ERROR:tcti:src/tss2-tcti/tcti-device.c:452:Tss2_Tcti_Device_Init() Failed to open specified TCTI device file /dev/tpmrm0: No such file or directory\nFailed to initialize TCTI context: tcti:IO failure", ErrTPMGone},
		{"no library", "TPM2 support is not installed.", ErrTPMGone},
		// A warning of 252 that comes with success, and faults of others.
		{"warning", "Selected TPM2 PCRs are not initialized on this system, most likely due to a firmware issue. PCR policy is effectively not enforced. Proceeding anyway.", nil},
		{"warned, then the host's key", "Selected TPM2 PCRs are not initialized on this system, most likely due to a firmware issue. PCR policy is effectively not enforced. Proceeding anyway.\nFailed to determine local credential key: No such file or directory", ErrHostKey},
		{"a journal: lockout, then another TPM", "TPM2 device is in dictionary attack lockout mode.\nStarting x\nFailed to load HMAC key in TPM: tpm:parameter(1):integrity check failed\nFailed at step CREDENTIALS", ErrRefused},
		{"name", "Embedded credential name 'x' does not match filename 'y', refusing.", nil},
		{"no file", "Failed to read encrypted credential data: No such file or directory", nil},
		{"nothing", "", nil},
	} {
		if got := Diagnose(c.text); !errors.Is(got, c.want) || got == nil != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
