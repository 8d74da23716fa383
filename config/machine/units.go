package machine

import "strings"

// The units by name.
const (
	UnitVault      = "vault.service"
	UnitKMS        = "strongroom-kms.service"
	UnitKMSSocket  = "strongroom-kms.socket"
	UnitFront      = "strongroom-front.service"
	UnitFrontHTTPS = "strongroom-front-https.socket"
	UnitFrontHTTP  = "strongroom-front-http.socket"
	UnitFirewall   = "strongroom-firewall.service"

	// The job that has the key of the internal CA's root, and its socket.
	UnitAuthority       = "strongroom-front-authority@.service"
	UnitAuthoritySocket = "strongroom-front-authority.socket"

	// The two of a certificate of the operator's own.
	UnitFrontCertificate     = "strongroom-front-certificate.service"
	UnitFrontCertificatePath = "strongroom-front-certificate.path"

	UnitSnapshot      = "strongroom-snapshot.service"
	UnitSnapshotTimer = "strongroom-snapshot.timer"
	UnitSnapshotPath  = "strongroom-snapshot.path"
	UnitSnapshotSoon  = "strongroom-snapshot-soon.service"
	// Root's job that packs the files of [backup] for UnitSnapshot, and its socket.
	UnitFiles       = "strongroom-snapshot-files@.service"
	UnitFilesSocket = "strongroom-snapshot-files.socket"

	UnitVerify     = "strongroom-verify.service"
	UnitVerifyPath = "strongroom-verify.path"
	UnitDrill      = "strongroom-drill.service"
	UnitDrillFetch = "strongroom-drill-fetch.service"
	UnitDrillTimer = "strongroom-drill.timer"
	UnitAlert      = "strongroom-alert@.service"
	UnitAudit      = "strongroom-audit.service"
	UnitAuditTimer = "strongroom-audit.timer"
	// The two looks of every minute: at the audit logs, and at the firewall.
	UnitAuditWatch         = "strongroom-audit-watch.service"
	UnitAuditWatchTimer    = "strongroom-audit-watch.timer"
	UnitFirewallWatch      = "strongroom-firewall-watch.service"
	UnitFirewallWatchTimer = "strongroom-firewall-watch.timer"

	// What was stopped before its end is told.
	UnitUnfinished      = "strongroom-unfinished.service"
	UnitUnfinishedTimer = "strongroom-unfinished.timer"

	UnitMetrics       = "strongroom-metrics.service"
	UnitMetricsSocket = "strongroom-metrics.socket"
	UnitDoctor        = "strongroom-doctor.service"
	UnitDoctorNet     = "strongroom-doctor-net.service"
	UnitDoctorTimer   = "strongroom-doctor.timer"
)

// Units that are in no installation for good.
const (
	// UnitNftables is the distribution's, which flushes everybody's tables.
	UnitNftables = "nftables.service"
	// UnitFirewallRollback, without its suffix, takes rules back that nobody
	// has confirmed.
	UnitFirewallRollback = "strongroom-firewall-rollback"
	// UnitFirstBoot installs unattended.
	UnitFirstBoot = "strongroom-first-boot.service"
)

// Units are those that are installed, as the folder systemd/ has them.
func Units() []string {
	return []string{
		UnitVault, UnitKMS, UnitKMSSocket, UnitFront, UnitFrontHTTPS, UnitFrontHTTP, UnitFirewall,
		UnitAuthority, UnitAuthoritySocket, UnitFrontCertificate, UnitFrontCertificatePath,
		UnitSnapshot, UnitSnapshotTimer, UnitSnapshotPath, UnitSnapshotSoon, UnitFiles, UnitFilesSocket, UnitVerify, UnitVerifyPath,
		UnitDrill, UnitDrillFetch, UnitDrillTimer, UnitAlert, UnitAudit, UnitAuditTimer,
		UnitAuditWatch, UnitAuditWatchTimer, UnitFirewallWatch, UnitFirewallWatchTimer,
		UnitUnfinished, UnitUnfinishedTimer,
		UnitMetrics, UnitMetricsSocket, UnitDoctor, UnitDoctorNet, UnitDoctorTimer,
	}
}

// UnitFrontHTTP3 was the socket of HTTP/3, which is spoken no more.
const UnitFrontHTTP3 = "strongroom-front-http3.socket"

// FormerUnits are those that earlier versions have installed: what meets one takes
// it away.
func FormerUnits() []string { return []string{UnitFrontHTTP3} }

// IsUnit says whether a unit, an instance of one or a transient one, is the
// appliance's, by its name alone.
func IsUnit(name string) bool { return name == UnitVault || strings.HasPrefix(name, "strongroom-") }

// IsBackupUnit says whether a unit is of use only with a place for backups.
func IsBackupUnit(name string) bool {
	for _, u := range []string{UserSnapshot, UserVerify, UserDrill} {
		if strings.HasPrefix(name, u) {
			return true
		}
	}
	return false
}

// RunningCredentials is where systemd opens the credentials of running units.
const RunningCredentials = "/run/credentials"

// CredentialsOf is the folder where systemd puts a running unit's credentials.
func CredentialsOf(unit string) string { return RunningCredentials + "/" + unit }
