package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config/machine"
)

// full is what each counter of the rules says when it grows.
var full = map[string]string{
	"known_full": "the set of addresses that have been here is full: new ones count as unknown, and share one rate where there are very many connections",
	"ssh_full":   "the set of addresses at SSH is full: addresses that ssh_from does not name share one rate there",
	"crowded":    "there are very many connections: addresses that have not been here lately share one rate, and some must try again",
}

const firewallLooks = 3

// WatchFirewall looks whether the rules in force are those that were written, and whether a
// set was full, notes what it finds in a folder, and tells what is due. It changes no rule.
func WatchFirewall(ctx context.Context, m Machine, dir string, repeat time.Duration, pause func(context.Context, time.Duration) error, tell func([]alert.Fault)) (evidence.Firewall, error) {
	place := evidence.Places{Firewall: dir}
	before, err := evidence.ReadFirewall(place)
	if err != nil && !errors.Is(err, statefile.ErrNone) && !errors.Is(err, statefile.ErrCorrupt) {
		return evidence.Firewall{}, err
	}
	var faults []alert.Fault
	var counters map[string]int64
	for n := 1; ; n++ {
		if faults, counters, err = firewallFaults(ctx, m, before.Counters); err != nil {
			return evidence.Firewall{}, err
		}
		// They are loaded anew by nftables.service, and by the installer.
		if len(faults) == 0 || n == firewallLooks {
			break
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return evidence.Firewall{}, err
		}
	}
	w := evidence.Firewall{At: m.Now().UTC(), Counters: counters}
	w.Faults = alert.Remember(before.Faults, faults, w.At)
	// The commit point of what was found comes before anybody is told: one that is killed
	// in between tells again.
	if err := evidence.SaveFirewall(place, w); err != nil {
		return w, err
	}
	if due := alert.Due(w.Faults, w.At, repeat); len(due) > 0 {
		tell(due)
		return w, evidence.SaveFirewall(place, w)
	}
	return w, nil
}

// firewallFaults is one look.
func firewallFaults(ctx context.Context, m Machine, before map[string]int64) ([]alert.Fault, map[string]int64, error) {
	const restart = "systemctl restart " + machine.UnitFirewall
	file, err := m.ReadFile(machine.NftablesConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	want := writtenRules(string(file))
	if want.rules() == 0 {
		return []alert.Fault{{ID: "file", Text: machine.NftablesConf + " is not there, or has no rule: the firewall is gone after the next boot", Hint: reinstall}}, nil, nil
	}
	out, err := m.Run(ctx, rulesetCommand()...)
	if err != nil {
		return nil, nil, fmt.Errorf("list the firewall's rules: %w", err)
	}
	have, err := loadedRules(out)
	if err != nil {
		return nil, nil, fmt.Errorf("list the firewall's rules: %w", err)
	}
	counters, err := loadedCounters(out)
	if err != nil {
		return nil, nil, fmt.Errorf("list the firewall's rules: %w", err)
	}
	if len(have) == 0 {
		return []alert.Fault{{ID: "absent", Text: "the firewall is not in force: the table inet " + machine.FirewallTable + " is not loaded", Hint: restart}}, counters, nil
	}
	if d := have.differences(want); len(d) > 0 {
		// Rules that wait for somebody's yes are in force and not yet written.
		next, err := m.ReadFile(machine.NftablesCandidate)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if err != nil || len(have.differences(writtenRules(string(next)))) > 0 {
			return []alert.Fault{{ID: "other", Text: "the firewall is another than was written: " + listed(d), Hint: restart}}, counters, nil
		}
	}
	var faults []alert.Fault
	for name, text := range full {
		// Less than before: the rules were loaded anew.
		if counters[name] > 0 && counters[name] != before[name] {
			faults = append(faults, alert.Fault{ID: name, Text: text, Hint: "docs/firewall.md, when a set is full"})
		}
	}
	return faults, counters, nil
}

// listed is the first differences in one line.
func listed(all []string) string {
	const most = 3
	if len(all) > most {
		all = append(all[:most:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, "; ")
}

// loadedCounters are the table's counters that have names, in packets.
func loadedCounters(data []byte) (map[string]int64, error) {
	var all struct {
		NFTables []struct {
			Counter *struct {
				Family, Table, Name string
				Packets             int64
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, o := range all.NFTables {
		if c := o.Counter; c != nil && c.Family == "inet" && c.Table == machine.FirewallTable {
			out[c.Name] = c.Packets
		}
	}
	return out, nil
}

// justBooted is how long after a start the looks of every minute may yet have to come.
const justBooted = 5 * 60 // seconds

// stale notes that the last look of every minute is too long ago, and says so.
func (e *exam) stale(ctx context.Context, unit string, at time.Time) bool {
	age := e.Machine.Now().Sub(at)
	if age <= evidence.WatchLate && !evidence.FromTheFuture(age) {
		return false
	}
	var up float64
	if b, err := e.Machine.ReadFile("/proc/uptime"); err == nil {
		if _, err := fmt.Sscan(string(b), &up); err == nil && up < justBooted {
			e.saw("/proc/uptime", "the machine has just started: %s has yet to run", unit)
			return false
		}
	}
	if timer := strings.TrimSuffix(unit, ".service") + ".timer"; e.justArmed(ctx, timer) {
		e.saw(timer, "it was armed a moment ago: %s has yet to run", unit)
		return false
	}
	e.fail("systemctl start "+unit+"; journalctl -u "+unit, "%s last looked at %s", unit, at.UTC().Format(time.RFC3339))
	return true
}

// justArmed says whether a timer of every minute has been active for less than two, as
// at the end of an installation: its first run is yet to come.
func (e *exam) justArmed(ctx context.Context, timer string) bool {
	var up, armed float64 // seconds and microseconds since the start of the machine
	b, err := e.Machine.ReadFile("/proc/uptime")
	if err != nil {
		return false
	}
	p, err := e.show(ctx, timer, "ActiveState", "ActiveEnterTimestampMonotonic")
	if err != nil || p["ActiveState"] != "active" {
		return false
	}
	if _, err := fmt.Sscan(string(b), &up); err != nil {
		return false
	}
	if _, err := fmt.Sscan(p["ActiveEnterTimestampMonotonic"], &armed); err != nil {
		return false
	}
	age := up - armed/1e6
	return 0 <= age && age < 120
}

// firewallWatched asks what the look of every minute has found.
func firewallWatched(ctx context.Context, e *exam) {
	if !e.firewallOurs() {
		return
	}
	f, err := evidence.ReadFirewall(e.Places)
	if errors.Is(err, statefile.ErrNone) {
		e.stale(ctx, machine.UnitFirewallWatch, time.Time{})
		e.yes(machine.UnitFirewallWatch, "nothing yet")
		return
	}
	if err != nil {
		e.unseen(e.Places.Firewall, err)
		return
	}
	e.stale(ctx, machine.UnitFirewallWatch, f.At)
	for _, x := range f.Faults {
		e.warn(x.Hint, "since %s: %s", x.Since.UTC().Format(time.RFC3339), x.Text)
	}
	e.yes(e.Places.Firewall, "last looked at %s", f.At.UTC().Format(time.RFC3339))
}

// auditWatched asks what the look of every minute has found of the audit logs.
func auditWatched(ctx context.Context, e *exam) {
	l, err := evidence.ReadAudit(e.Places)
	switch {
	case errors.Is(err, statefile.ErrNone) && e.justArmed(ctx, machine.UnitAuditWatchTimer):
		e.yes(e.Places.Audit, "nothing yet: %s was armed a moment ago", machine.UnitAuditWatchTimer)
		return
	case errors.Is(err, statefile.ErrNone):
		e.fail("systemctl start "+machine.UnitAuditWatch, "nobody watches whether the audit logs are there: %s has no ledger", e.Places.Audit)
		return
	case err != nil:
		e.unseen(e.Places.Audit, err)
		return
	}
	looked := l.At
	if looked.IsZero() {
		looked = l.Begun
	}
	e.stale(ctx, machine.UnitAuditWatch, looked)
	for _, x := range l.Losses {
		e.fail("docs/monitoring.md, audit logs; then strongroom audit acknowledge", "audit history was lost: %s", x)
	}
	for _, x := range l.Faults {
		e.fail(x.Hint, "since %s: %s", x.Since.UTC().Format(time.RFC3339), x.Text)
	}
	e.yes(e.Places.Audit, "%s watched since %s, %s", words.Count(len(l.Files), "file"), l.Begun.UTC().Format(time.RFC3339), words.Count(len(l.Logs), "log"))
}
