package e2e

// change is what is wrong with a series for a while, as test/oracles' promrules
// reads it. From and To are filled in by the test.
type change struct {
	Series    string   `json:"series"`
	From      int64    `json:"from"`
	To        int64    `json:"to"`
	Set       *float64 `json:"set,omitempty"`
	PerSecond *float64 `json:"per_second,omitempty"`
	Age       *float64 `json:"age,omitempty"`
	Gone      bool     `json:"gone,omitempty"`
	Down      bool     `json:"down,omitempty"`
}

func set(series string, v float64) change   { return change{Series: series, Set: &v} }
func grows(series string, v float64) change { return change{Series: series, PerSecond: &v} }

// stopped is a time that stands still; in seconds, when it begins to.
func stopped(series string, v float64) change { return change{Series: series, Age: &v} }

// alertCase makes one value bad, or says what is not bad enough.
type alertCase struct {
	alert   string
	bad     []change
	also    []string // alerts that rightly fire with it
	summary string   // as the alert tells it, with labels as $name
	slack   int64    // seconds until what is bad is over the limit
	lasts   int64    // seconds that it goes on after the repair
}

const (
	hour = 3600
	day  = 24 * hour
	// A life of a million seconds makes percentages of it plain.
	life = 1e6
)

func certificate(left float64) []change {
	return []change{
		stopped("strongroom_certificate_not_before_seconds", life-left),
		stopped("strongroom_certificate_not_after_seconds", -left),
	}
}

func one(c ...change) []change { return c }

// alertCases has a row at least for every alert.
var alertCases = []alertCase{
	{alert: "StrongroomGone", bad: one(change{Series: `up{job="strongroom"}`, Down: true}), summary: "Nothing is heard of $instance"},
	{alert: "StrongroomGone", bad: one(change{Series: `{job="strongroom"}`, Gone: true}), summary: "Nothing is heard of the machine"},
	{alert: "StrongroomPartUnreadable", bad: one(set(`strongroom_collector_success{part="keys"}`, 0)), summary: "Part of the metrics is missing: keys"},
	{alert: "VaultDown", bad: one(set("strongroom_vault_up", 0)), summary: "Vault does not answer"},
	{alert: "VaultSealed", bad: one(set("strongroom_vault_sealed", 1)), summary: "Vault is sealed"},
	{alert: "VaultAuditFails", bad: one(grows("vault_audit_log_request_failure", 0.02)), summary: "Vault could not write its audit log", slack: 120, lasts: 6 * 60},
	{alert: "VaultAuditFails", bad: one(grows("vault_audit_log_response_failure", 0.02)), summary: "Vault could not write its audit log", slack: 120, lasts: 6 * 60},
	// One of the two alone is enough to know by.
	{alert: "VaultAuditFails", bad: one(change{Series: "vault_audit_log_response_failure", Gone: true}, grows("vault_audit_log_request_failure", 0.02)),
		summary: "Vault could not write its audit log", slack: 120, lasts: 6 * 60},
	{alert: "VaultTelemetryMissing", bad: one(change{Series: `up{job="strongroom-vault"}`, Down: true}), summary: "Vault's own telemetry is not heard"},
	{alert: "VaultTelemetryMissing", bad: one(change{Series: `{job="strongroom-vault"}`, Gone: true}), summary: "Vault's own telemetry is not heard"},

	{alert: "CertificateExpires", bad: certificate(150_000), summary: "14.91% of the certificate's life are left"},
	{alert: "CertificateExpiresNow", also: []string{"CertificateExpires"}, bad: certificate(70_000), summary: "7% of the certificate's life are left"},
	{alert: "CertificateExpiresNow", also: []string{"CertificateExpires"}, bad: certificate(-60), summary: "The certificate has expired"},
	{alert: "NoCertificate", bad: one(set(`strongroom_front_certificate_not_after_seconds{name="localhost"}`, 0)), summary: "The front has no certificate for $name"},
	{alert: "CertificateForAnotherName", bad: one(set("strongroom_certificate_covers_name", 0)), summary: "The front presents a certificate for another name"},
	{alert: "CertificateOrdersFail", bad: one(grows("strongroom_front_certificate_failures_total", 0.01)), summary: "Orders for a certificate fail", slack: 10 * 60, lasts: day + 600},

	{alert: "SnapshotOld", bad: one(stopped("strongroom_snapshot_verified_taken_time_seconds", 2*hour+60)), summary: "The newest verified snapshot is 2h 16m 0s old"},
	{alert: "SnapshotStale", also: []string{"SnapshotOld"}, bad: one(stopped("strongroom_snapshot_verified_taken_time_seconds", 25*hour+60)), summary: "No snapshot was verified for 1d 1h 1m 0s"},
	{alert: "SnapshotOld", also: []string{"SnapshotStale"}, bad: one(set("strongroom_snapshot_verified_taken_time_seconds", 0)), summary: "No snapshot was ever verified"},
	{alert: "SnapshotStale", also: []string{"SnapshotOld"}, bad: one(set("strongroom_snapshot_verified_taken_time_seconds", 0)), summary: "No snapshot was ever verified"},
	{alert: "BackupFromTheFuture", bad: one(stopped("strongroom_snapshot_verified_taken_time_seconds", -day)), summary: "A backup or drill is dated 1d 0h 0m 0s after now"},
	{alert: "BackupClockInDoubt", bad: one(set("strongroom_snapshot_clock_in_doubt", 1)), summary: "The machine's clock is in doubt, and no backup is deleted"},
	{alert: "SnapshotPlaceOld", bad: one(stopped("strongroom_snapshot_place_verified_taken_time_seconds", 6*hour+60)), summary: "$place has no recent verified snapshot"},
	{alert: "SnapshotFails", bad: one(set("strongroom_snapshot_take_failed", 1)), summary: "Snapshots fail"},
	{alert: "SnapshotFails", bad: one(set("strongroom_snapshot_verify_failed", 1)), summary: "Snapshots fail"},
	{alert: "SnapshotWithoutCanary", bad: one(set("strongroom_snapshot_canary_failed", 1)), summary: "Snapshots are taken without a canary"},
	{alert: "DrillOld", bad: one(stopped("strongroom_drill_time_seconds", 99*day+60)), summary: "No restore was rehearsed for a quarter"},
	{alert: "DrillOld", bad: one(set("strongroom_drill_time_seconds", 0)), summary: "No restore was rehearsed for a quarter"},
	{alert: "DrillFailed", bad: one(set("strongroom_drill_passed", 0)), summary: "The last drill failed"},
	{alert: "EscrowUnconfirmed", bad: one(set("strongroom_escrow_confirmed", 0)), summary: "The escrow has not been proved to open off the machine"},

	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="overdue"}`, 1)), summary: "Keys of generated that need a person: 1"},
	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="failing"}`, 2)), summary: "Keys of generated that need a person: 2"},
	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="revocation_failing"}`, 1)), summary: "Keys of generated that need a person: 1"},
	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="uncertain",provider="stripe"}`, 1)), summary: "Keys of stripe that need a person: 1"},
	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="down"}`, 1)), summary: "Keys of generated that need a person: 1"},
	// A word of a newer engine's.
	{alert: "KeysFail", bad: one(set(`strongroom_keys{condition="a_word_of_tomorrow"}`, 1)), summary: "Keys of generated that need a person: 1"},
	{alert: "KeysInUse", bad: one(set(`strongroom_keys{condition="in_use"}`, 1)), summary: "Keys of generated whose replaced version is still used: 1"},
	{alert: "KeysAwaitImport", bad: one(set(`strongroom_keys{condition="awaiting_import"}`, 1)), summary: "Keys of generated that wait for their first version: 1"},
	{alert: "RotationsStuck", bad: one(set("strongroom_keys_due_rotations", 1)), summary: "Rotations are due and do not begin"},
	{alert: "KeysFenced", bad: one(set("strongroom_keys_fenced", 1)), summary: "The engine rotates nothing until reconcile"},
	{alert: "KeysClock", bad: one(set("strongroom_keys_clock_believed", 0)), summary: "The engine does not believe the machine's clock"},
	{alert: "KeysWebhooksFail", bad: one(set("strongroom_keys_webhooks_failing", 1)), summary: "Webhooks of the engine fail"},

	{alert: "DoctorOld", bad: one(stopped("strongroom_doctor_time_seconds", 49*hour+60)), summary: "The machine was not examined for two days"},
	{alert: "DoctorFails", bad: one(set(`strongroom_doctor_item_failed{item="swap"}`, 1)), summary: "The doctor finds fault: swap"},
	{alert: "AuditDiskFills", bad: one(set("strongroom_audit_disk_used_ratio", 0.85)), summary: "The disk of the audit logs is used to 85%"},
	{alert: "AuditDiskFull", also: []string{"AuditDiskFills"}, bad: one(set("strongroom_audit_disk_used_ratio", 0.95)), summary: "The disk of the audit logs is used to 95%"},
	{alert: "AuditDeletedEarly", bad: one(grows("strongroom_audit_deleted_early_total", 0.02)), summary: "Audit logs were deleted before their time", slack: 120, lasts: hour + 60},
	{alert: "AuditJobFails", bad: one(set("strongroom_audit_failed", 1)), summary: "Audit logs are not looked after"},
	{alert: "AuditJobFails", bad: one(stopped("strongroom_audit_time_seconds", hour+60)), summary: "Audit logs are not looked after"},

	{alert: "FrontCannotReachVault", bad: one(grows("strongroom_front_upstream_failures_total", 0.2)), summary: "The front does not reach Vault", slack: 5 * 60, lasts: 6 * 60},
	{alert: "AuditHistoryLost", bad: one(set("strongroom_audit_losses", 1)), summary: "Audit history is lost"},
	{alert: "AuditNotWritten", bad: one(set("strongroom_audit_faults", 1)), summary: "An audit log is not there, or Vault does not write to it"},
	{alert: "AuditUnwatched", bad: one(stopped("strongroom_audit_watch_time_seconds", 11*60)), summary: "Nobody looks whether the audit logs are there"},
	{alert: "FirewallFaults", bad: one(set("strongroom_firewall_faults", 1)), summary: "The firewall is not in force, or not as it was written"},
	{alert: "FirewallUnwatched", bad: one(stopped("strongroom_firewall_watch_time_seconds", 11*60)), summary: "Nobody looks whether the firewall is in force"},
	{alert: "UsersLockedOut", bad: one(set("strongroom_vault_locked_users", 2)), summary: "Names that nobody can log in as for a while: 2"},

	{alert: "FrontAnswersWithErrors", bad: one(grows("strongroom_front_server_errors_total", 1)), summary: "Clients get errors", slack: 5 * 60, lasts: 6 * 60},
	{alert: "FrontLimitsClients", bad: one(grows("strongroom_front_limited_total", 2)), summary: "Clients run into the limits", slack: 5 * 60, lasts: 6 * 60},

	// What is no alert, or not yet.
	{bad: certificate(210_000)},
	{bad: one(grows("strongroom_front_certificate_failures_total", 0.0002))},
	{bad: one(stopped("strongroom_snapshot_verified_taken_time_seconds", 10*60))},
	{bad: one(stopped("strongroom_snapshot_verified_taken_time_seconds", 30*day), set("strongroom_snapshot_standby", 1))},
	{bad: one(stopped("strongroom_snapshot_place_verified_taken_time_seconds", 30*day), set("strongroom_snapshot_standby", 1))},
	{bad: one(stopped("strongroom_drill_time_seconds", 98*day))},
	{bad: one(set(`strongroom_keys{condition="pending"}`, 1))},
	{bad: one(set(`strongroom_keys{condition="deleting"}`, 1))},
	{bad: one(set("strongroom_audit_disk_used_ratio", 0.8))},
	{bad: one(grows("strongroom_front_upstream_failures_total", 0.05))},
	{bad: one(grows(`strongroom_front_requests_total{code="4xx"}`, 100))},
	{bad: one(grows("strongroom_front_server_errors_total", 0.4))},
	// What Vault answers to strangers.
	{bad: one(grows(`strongroom_front_requests_total{code="5xx"}`, 100))},
	{bad: one(grows("strongroom_front_limited_total", 0.8))},
	// A standby logs no requests of its own.
	{bad: one(change{Series: "{__name__=~\"vault_audit.*\"}", Gone: true}, set("strongroom_vault_standby", 1))},
}
