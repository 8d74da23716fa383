package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// What each test of this package does on OpenBao, the second server.
const (
	runs     = "runs"                       // in make test
	soakRuns = "runs in soak"               // it is long
	noServer = "needs no server, or a fake" // nothing would be another
)

var onOpenBao = map[string]string{
	"TestVaultCLIReadsKeys":                 runs,
	"TestVaultAgentPicksUpRotation":         runs,
	"TestCurlReadsConditionally":            runs,
	"TestProvidersOfOneAccount":             runs,
	"TestRotateKeysPage":                    runs,
	"TestReadersPage":                       runs,
	"TestReloadWithThousandWaiters":         runs,
	"TestKillCampaign":                      runs,
	"TestWebhooksOutliveAKilledVault":       runs,
	"TestDemoStaysAndKeeps":                 runs,
	"TestDemoEndings":                       runs,
	"TestMigrateThereAndBack":               runs,
	"TestKVExportImportRollback":            runs,
	"TestDotenvLimitsOfEnvironments":        runs,
	"TestSnapshotRestorePath":               runs,
	"TestUnsealAfterKill":                   runs,
	"TestStockClientsThroughTheFront":       runs,
	"TestAppPolicies":                       runs,
	"TestKillCampaignOfLies":                soakRuns,
	"TestAppsPageCommands":                  soakRuns,
	"TestPeoplePageCommands":                soakRuns,
	"TestTwoHundredAppsUnchanged":           soakRuns,
	"TestPeopleUserpass":                    soakRuns,
	"TestPodsKubernetes":                    soakRuns,
	"TestPeopleOIDC":                        soakRuns,
	"TestLoginBundles":                      soakRuns,
	"TestAppsMariaDB":                       soakRuns,
	"TestAppsGroupsOfTwoSchemas":            soakRuns,
	"TestAppsPostgreSQL":                    soakRuns,
	"TestAppsThroughAPooler":                soakRuns,
	"TestAppsOnNewerPostgreSQL":             soakRuns,
	"TestAppsCheckDBFindsFaults":            soakRuns,
	"TestAuditRotationLosesNothing":         soakRuns,
	"TestAuditWatch":                        runs,
	"TestDrill":                             soakRuns,
	"TestEscrowConfirm":                     soakRuns,
	"TestCallsWithoutAToken":                runs,
	"TestEscrowLetsIn":                      runs,
	"TestEscrowLetsInAfterAKilledRun":       runs,
	"TestFrontShowsVaultTheClient":          soakRuns,
	"TestFrontTellsNoNames":                 soakRuns,
	"TestFrontInAnAttackersHour":            soakRuns,
	"TestFrontShowsTheWebInterface":         soakRuns,
	"TestFrontLocksNobodyOut":               runs,
	"TestVaultTakesNobodyButTheFront":       soakRuns,
	"TestVaultListenerWantsTheFront":        soakRuns,
	"TestFrontWrapsNothingForStrangers":     soakRuns,
	"TestFrontKeepsTheAuditLogSmall":        soakRuns,
	"TestVaultListenerLimitsJSON":           "OpenBao limits strings alone",
	"TestKMSRotationReachesVaultsSeal":      soakRuns,
	"TestAlertsAndDashboard":                soakRuns,
	"TestMetrics":                           soakRuns,
	"TestMigrateDocs":                       soakRuns,
	"TestMigrateStoreConformance":           soakRuns,
	"TestMigrateRepositories":               soakRuns,
	"TestPresetsInVault":                    soakRuns,
	"TestShownPresets":                      soakRuns,
	"TestGitLabInVault":                     soakRuns,
	"TestProvidersPage":                     soakRuns,
	"TestSnapshotRestore":                   soakRuns,
	"TestSnapshotRestoreOntoANewMachine":    soakRuns,
	"TestSnapshotRestoreStock":              soakRuns,
	"TestSnapshotRestoreForced":             runs,
	"TestSnapshotLoginCanDoNothingElse":     soakRuns,
	"TestSnapshotOfAFailingVault":           soakRuns,
	"TestStatus":                            runs,
	"TestStatusWatch":                       soakRuns,
	"TestFrontsCertificate":                 soakRuns,
	"TestCloneBuildsReproducibly":           noServer,
	"TestMakeWithoutGo":                     noServer,
	"TestDemoBadInput":                      noServer,
	"TestDemoDiskFull":                      noServer,
	"TestDoctorWithoutVault":                noServer,
	"TestFrontTellsSystemdTheTruth":         noServer,
	"TestMigrateDocsTable":                  noServer,
	"TestDotenvAgreesWithPython":            noServer,
	"TestDotenvAgreesWithCompose":           noServer,
	"TestDotenvAgreesWithReaders":           noServer,
	"TestDotenvPrintedIsRead":               noServer,
	"TestRulesAgreeWithGitleaks":            noServer,
	"TestMigrateSpeed":                      noServer,
	"TestSnapshotMemory":                    noServer,
	"TestSnapshotOfAGigabyte":               "measures Vault",
	"TestFirstReleaseAfterRollback":         "version 0.1 is tried as it was released, on Vault",
	"TestDoctorAsksVault":                   runs,
	"TestPeopleLDAP":                        "OpenBao has no LDAP since 2.7",
	"TestEscrowLetsInWhereVaultWantsAToken": "is about Vault's rule; TestEscrowLetsIn has OpenBao's",
	"TestCluster":                           "joins nodes as the installer does, which installs Vault alone",
	"TestNodeIsAdded":                       "the same",
	"TestClusterLosesItsLeader":             "the same",
	"TestMoveToOpenBao":                     "runs both",
	"TestArm64":                             "is about the processor",
	"TestSnapshotTakeVerifyPrune":           "asks the CLI for raft snapshot inspect, which OpenBao's has not",
	"TestDrillRTO":                          "measures Vault",
	"TestDrillKilledAnywhere":               "measures Vault",
}

// The same programs on OpenBao: make test has its program out of the wheel that
// python/requirements-dev.txt pins; OPENBAO_BIN names another, of any 2.x release.
func TestOnOpenBao(t *testing.T) {
	t.Parallel()
	listed, err := exec.CommandContext(t.Context(), os.Args[0], "-test.list", "^Test").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names, not []string
	later, without := 0, 0
	for name := range strings.Lines(string(listed)) {
		name = strings.TrimSpace(name)
		switch what, known := onOpenBao[name]; {
		case name == t.Name():
		case !known:
			t.Errorf("onOpenBao does not say what %s does on OpenBao", name)
		case what == runs || what == soakRuns && os.Getenv("STRONGROOM_SOAK") == "1":
			names = append(names, name)
		case what == soakRuns:
			later++
		case what == noServer:
			without++
		default:
			not = append(not, name+": "+what)
		}
	}
	for name := range onOpenBao {
		if !strings.Contains(string(listed), name+"\n") {
			t.Errorf("onOpenBao has %s, which is no test", name)
		}
	}

	bao := os.Getenv("OPENBAO_BIN")
	if bao == "" {
		bao = filepath.Join(vaulttest.Root(t), "bin", "openbao")
	}
	if _, err := os.Stat(bao); err != nil {
		t.Skipf("no OpenBao (scripts/openbao fetches it): %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^("+strings.Join(names, "|")+")$", "-test.v", "-test.count=1", "-test.parallel=2")
	cmd.Env = append(os.Environ(), "VAULT_BIN="+bao, "OPENBAO_BIN=", "STRONGROOM_REAL=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("on OpenBao: %v\n%s", err, out)
	}
	passed := 0
	for _, name := range names {
		if strings.Contains(string(out), "\n--- PASS: "+name+" (") {
			passed++
		} else {
			t.Errorf("%s did not pass on OpenBao", name)
		}
	}
	slices.Sort(not)
	t.Logf("on Vault all %d are run; on OpenBao %d of %d passed, %d are for soak, %d need no server, %d do not apply:\n%s",
		len(onOpenBao), passed, len(names), later, without, len(not), strings.Join(not, "\n"))
}
