package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "strongroom_"

// metric is one of ours. Times are Unix times in seconds, 0 for never.
type metric struct {
	name, help string
	labels     []string
}

// table is all that this package emits, beside what it passes on from the front
// and the secrets engine.
var table = []metric{
	{"build_info", "1; the version of the program that answers.", []string{"version"}},
	{"collector_success", "Whether a part of the metrics could be read.", []string{"part"}},
	{"collector_duration_seconds", "How long a part of the metrics took.", []string{"part"}},

	{"certificate_not_after_seconds", "End of the certificate that the front presents, as a Unix time.", nil},
	{"certificate_not_before_seconds", "Begin of that certificate, as a Unix time.", nil},
	{"certificate_covers_name", "Whether that certificate is for the configured domain.", nil},

	{"snapshot_taken_time_seconds", "When the newest snapshot was taken, verified or not, as a Unix time; 0: never.", nil},
	{"snapshot_verified_taken_time_seconds", "When the newest verified snapshot was taken, as a Unix time; 0: never.", nil},
	{"snapshot_verified_time_seconds", "When that one was verified, as a Unix time; 0: never.", nil},
	{"snapshot_verified_size_bytes", "Size of that one, encrypted.", nil},
	{"snapshot_place_failed", "Whether taking or verifying last failed in a place.", []string{"place"}},
	{"snapshot_place_verified_taken_time_seconds", "When the newest verified snapshot in a place was taken, as a Unix time.", []string{"place"}},
	{"snapshot_take_failed", "Whether the last run that takes snapshots failed.", nil},
	{"snapshot_verify_failed", "Whether the last run that verifies them failed.", nil},
	{"snapshot_clock_in_doubt", "Whether the clock is in doubt, or was when the newest verified snapshot was taken: no backup is deleted.", nil},
	{"snapshot_canary_failed", "Whether the last snapshot went without a canary: the next drill will fail.", nil},
	{"snapshot_standby", "Whether the job stood aside, because this node is a standby.", nil},

	{"drill_time_seconds", "When the newest drill ended, as a Unix time; 0: never.", nil},
	{"drill_passed", "Whether it passed.", nil},
	{"drill_rpo_seconds", "What would have been lost, as it measured.", nil},
	{"drill_rto_seconds", "How long the rebuild took, as it measured.", nil},

	{"doctor_time_seconds", "When the doctor last ran, as a Unix time; 0: never.", nil},
	{"doctor_items", "Items by their verdict.", []string{"verdict"}},
	{"doctor_item_failed", "Whether an item failed.", []string{"item"}},
	{"escrow_confirmed", "Whether the escrow has proved that it opens off the machine, as the doctor saw it.", nil},

	{"audit_time_seconds", "When the audit logs were last looked after, as a Unix time; 0: never.", nil},
	{"audit_failed", "Whether that run failed.", nil},
	{"audit_disk_used_ratio", "Use of the disk that the audit logs are on, 0 to 1.", nil},
	{"audit_log_size_bytes", "Size of a log that Vault writes to.", []string{"log"}},
	{"audit_kept_logs", "Rotated logs that are kept.", nil},
	{"audit_kept_size_bytes", "What they take.", nil},
	{"audit_deleted_early_total", "Logs that were deleted before their time because the disk was full.", nil},
	{"audit_watch_time_seconds", "When it was last looked whether the audit logs are there and written, as a Unix time; 0: never.", nil},
	{"audit_losses", "What is missing of the audit history, until somebody acknowledges it.", nil},
	{"audit_faults", "What is wrong with the audit logs now: one is not there, or Vault does not write to it.", nil},

	{"firewall_watch_time_seconds", "When the firewall was last looked at, as a Unix time.", nil},
	{"firewall_faults", "What is wrong with the firewall now: it is not in force, is another than was written, or one of its sets is full.", nil},

	{"vault_up", "Whether Vault answers on its local socket.", nil},
	{"vault_initialized", "Whether Vault is initialised.", nil},
	{"vault_sealed", "Whether Vault is sealed.", nil},
	{"vault_standby", "Whether Vault is a standby node.", nil},
	{"vault_info", "1; Vault's version, and whether the project's tests ran it.", []string{"version", "tested"}},
	{"vault_locked_users", "Names that nobody can log in as for a while, after wrong passwords.", nil},

	{"keys", "API keys by provider and condition.", []string{"provider", "condition"}},
	{"keys_due_rotations", "Rotations that are due and have not begun.", nil},
	{"keys_open_intents", "Mints whose end is not known.", nil},
	{"keys_fenced", "Whether the engine acts on nothing until reconcile.", nil},
	{"keys_clock_believed", "Whether the engine believes the machine's clock.", nil},
	{"keys_webhooks_failing", "Webhooks of the engine whose last delivery failed.", nil},
	{"keys_next_rotation_seconds", "The soonest next rotation of a provider's keys, as a Unix time.", []string{"provider"}},
	{"keys_oldest_rotation_seconds", "The longest-ago last rotation of a provider's keys, as a Unix time.", []string{"provider"}},
}

// kindOf is a counter for names that end in _total, as Prometheus has it.
func kindOf(name string) prometheus.ValueType {
	if strings.HasSuffix(name, "_total") {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}
