package machine

// The sealed credentials by name; each is in CredentialDir in a file of that
// name.
const (
	CredMasterKey = "master-key"
	// CredRootToken is there until an installation has come to its end.
	CredRootToken       = "root-token"
	CredDrillKey        = "drill-key"
	CredDrillSigningKey = "drill-signing-key"
	// CredSnapshotSigningKey signs the manifests of snapshots.
	CredSnapshotSigningKey = "snapshot-signing-key"
	// CredS3 is the key pair of the bucket for backups; further ones have a
	// number at the end.
	CredS3 = "backup-s3"
	// CredBackupWebhook is the URL that is told of failed backups.
	CredBackupWebhook = "backup-webhook"
	CredAlertWebhook  = "alert-webhook"
	CredAlertSMTP     = "alert-smtp"

	// The front's, where the configuration wants them.
	CredACMEEAB         = "acme-eab"
	CredACMEFallbackEAB = "acme-fallback-eab"
	CredACMEDNSToken    = "acme-dns-token"
)

// Credentials that are handed to a unit as they are: files of TLSDir, and
// certificates of the operator's own.
const (
	CredCA        = "ca.crt"
	CredServerCrt = "server.crt"
	CredServerKey = "server.key"
	CredFrontCrt  = "front.crt"
	CredFrontKey  = "front.key"
	// CredFrontACMERoot is what signs the certificate of an ACME authority of
	// one's own.
	CredFrontACMERoot = "acme-ca.crt"
	CredTLSCrt        = "tls.crt"
	CredTLSKey        = "tls.key"
)

// Files of credentials that more than one part looks for.
const (
	MasterKeyFile    = CredentialDir + "/" + CredMasterKey
	RootTokenFile    = CredentialDir + "/" + CredRootToken
	DoctorSecretFile = CredentialDir + "/" + CredDoctorSecretID
)

// The jobs that have a login of their own: an AppRole by the name of the job's
// policy, and two credentials.
const (
	JobSnapshot = "snapshot"
	JobCanary   = "canary"
	JobDrill    = "drill"
	JobMonitor  = "monitor"
	JobDoctor   = "doctor"

	roleID   = "-role-id"
	secretID = "-secret-id"

	CredSnapshotRoleID   = JobSnapshot + roleID
	CredSnapshotSecretID = JobSnapshot + secretID
	CredCanaryRoleID     = JobCanary + roleID
	CredCanarySecretID   = JobCanary + secretID
	CredDrillRoleID      = JobDrill + roleID
	CredDrillSecretID    = JobDrill + secretID
	CredMonitorRoleID    = JobMonitor + roleID
	CredMonitorSecretID  = JobMonitor + secretID
	CredDoctorRoleID     = JobDoctor + roleID
	CredDoctorSecretID   = JobDoctor + secretID
)

// Jobs are the names of the jobs that log in.
func Jobs() []string { return []string{JobSnapshot, JobCanary, JobDrill, JobMonitor, JobDoctor} }

// CredRoleID is the name of the credential with a job's role id.
func CredRoleID(job string) string { return job + roleID }

// CredSecretID is the name of the credential with a job's secret id.
func CredSecretID(job string) string { return job + secretID }

// NextCredential ends the file of a credential that takes effect when somebody
// has confirmed it.
const NextCredential = ".next"

// CredentialFile is where a sealed credential is.
func CredentialFile(name string) string { return CredentialDir + "/" + name }
