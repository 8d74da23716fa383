package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What the engine must do on OpenBao as it does on Vault: be read by the stock
// CLI, agent and curl, follow its own manual, be reloaded, be killed.
var onOpenBao = []string{
	"TestVaultCLIReadsKeys", "TestVaultAgentPicksUpRotation", "TestCurlReadsConditionally",
	"TestRotateKeysPage", "TestReloadWithThousandWaiters", "TestKillCampaign",
}

// The same program of the plugin runs in OpenBao. OPENBAO_BIN names its bao,
// of any 2.x release; nothing here fetches it.
func TestEngineOnOpenBao(t *testing.T) {
	bao := os.Getenv("OPENBAO_BIN")
	if bao == "" {
		t.Skip("OPENBAO_BIN does not name OpenBao's program")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^("+strings.Join(onOpenBao, "|")+")$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), "VAULT_BIN="+bao, "OPENBAO_BIN=", "STRONGROOM_REAL=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("on OpenBao: %v\n%s", err, out)
	}
	for _, name := range onOpenBao {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s did not pass on OpenBao:\n%s", name, out)
		}
	}
}
