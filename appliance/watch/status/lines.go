package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/plugin/condition"
)

// State is a line's colour.
type State string

// The states of a line, from good to bad.
const (
	Well      State = "well"
	Attention State = "attention" // somebody should look, soon
	Bad       State = "bad"       // somebody must act, now
	Unknown   State = "unknown"
)

// Line is one part of the appliance.
type Line struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Text  string `json:"text"`
	// Hint is what to do about it.
	Hint string `json:"hint,omitempty"`
}

// From when on a line asks for attention.
const (
	certificateSoon = 21 * 24 * time.Hour // Let's Encrypt's is renewed at 30 days
	certificateNow  = 7 * 24 * time.Hour
	doctorStale     = 2*24*time.Hour + 2*time.Hour
)

func (r Report) lines() []Line {
	out := []Line{r.vaultLine(), r.certificateLine(), r.backupLine(), r.drillLine(), r.escrowLine(), r.doctorLine()}
	if r.Audit != nil {
		out = append(out, r.auditLine())
	}
	if r.Firewall != nil {
		out = append(out, r.firewallLine())
	}
	if r.LockedOut != nil && r.LockedOut.Total > 0 {
		out = append(out, r.lockedOutLine())
	}
	if r.Keys != nil {
		out = append(out, r.keysLine())
	}
	return out
}

func (r Report) why(what string) string {
	for _, m := range r.Missing {
		if strings.HasPrefix(m.What, what) {
			return m.Why
		}
	}
	return ""
}

func (r Report) vaultLine() Line {
	l := Line{Name: "Vault", State: Bad}
	switch h := r.Vault; {
	case r.Locked != "":
		l.Text, l.Hint = "SEALED: "+r.Locked, cmp.Or(r.lockedHint, "docs/unseal.md")
	case h == nil:
		l.Text, l.Hint = "does not answer: "+r.why("Vault"), "systemctl status vault strongroom-kms; docs/unseal.md"
	case !h.Initialized:
		l.Text, l.Hint = "not initialised", "strongroom-installer install"
	case h.Sealed:
		l.Text, l.Hint = "SEALED · "+r.version(), "systemctl status strongroom-kms; docs/unseal.md"
	case r.Mute:
		l.Text = "unsealed, and answers 500 to everybody · " + r.version()
		l.Hint = "df -h /var/log/vault and make room, for it serves nobody while it can't write an audit log; else journalctl -u vault"
	default:
		l.State, l.Text = Well, "unsealed, active · "+r.version()
		if h.Standby {
			l.Text = "unsealed, standby · " + r.version()
		}
		// What the installer takes is as new as can be, and often newer than
		// what the tests could run: its text says so, and it is no alarm.
		server := h.Server()
		if old, err := server.Old(); !h.Tested && (old || err != nil) {
			l.State = Attention
			l.Hint = "the tests ran " + strings.Join(server.Product.Tested(), ", ") + "; from " + server.Product.Floor() + " on there is no known fault"
		}
	}
	if r.tpm && r.Vault != nil && !r.Vault.Sealed {
		l.Text += " · sealed by the TPM"
	}
	if r.Raft != nil {
		l.Text += " · " + words.Count(len(r.Raft.Nodes), "raft node")
		if !slices.ContainsFunc(r.Raft.Nodes, func(n vaultapi.RaftNode) bool { return n.Leader }) {
			l.State, l.Hint = Bad, "raft has no leader: journalctl -u vault"
			l.Text += ", no leader"
		}
	}
	return l
}

func (r Report) version() string {
	s := r.Vault.Version
	if r.Vault.Product == config.ProductOpenBao {
		s = r.Vault.Server().String() // the line's name is Vault
	}
	if r.Vault.Tested {
		return s
	}
	return s + " (untested version)"
}

func (r Report) certificateLine() Line {
	l := Line{Name: "Certificate", State: Unknown}
	c := r.Certificate
	if c == nil {
		l.Text = r.why("certificate")
		if r.Domain != "" {
			l.State, l.Hint = Bad, "systemctl status strongroom-front"
		}
		return l
	}
	left := c.Left(r.At)
	l.Text = fmt.Sprintf("%s left, until %s · %s", words.Count(c.DaysLeft(r.At), "day"), c.NotAfter.UTC().Format("2 Jan 2006"), issuer(c.Issuer))
	switch {
	case !c.Covers:
		l.State, l.Hint = Bad, "docs/certificates.md"
		l.Text = "is not for " + r.Domain + " but for " + strings.Join(c.Names, ", ")
	case left <= 0:
		l.State, l.Hint = Bad, "journalctl -u strongroom-front; docs/certificates.md"
		l.Text = fmt.Sprintf("EXPIRED %s ago · %s", span(-left), issuer(c.Issuer))
	case shortLived(*c):
		// An authority of the appliance's own gives certificates of hours, and
		// renews them all the time.
		l.State = Well
		l.Text = fmt.Sprintf("%s left, renewed by itself · %s", span(left), issuer(c.Issuer))
		if life := c.NotAfter.Sub(c.NotBefore); left < life/5 {
			l.State, l.Hint = Attention, "it should have been renewed: journalctl -u strongroom-front"
		}
	case left < certificateNow:
		l.State, l.Hint = Bad, "renewal fails: journalctl -u strongroom-front; docs/certificates.md"
	case left < certificateSoon:
		l.State, l.Hint = Attention, "it should have been renewed: journalctl -u strongroom-front"
	default:
		l.State = Well
	}
	return l
}

// shortLived says whether the certificate's whole life is shorter than the time
// at which a long one would be overdue for renewal.
func shortLived(c evidence.Certificate) bool { return c.NotAfter.Sub(c.NotBefore) < certificateSoon }

// issuer is the name that people know an authority by.
func issuer(dn string) string {
	var cn, o string
	for part := range strings.SplitSeq(dn, ",") {
		switch key, value, _ := strings.Cut(part, "="); key {
		case "CN":
			cn = value
		case "O":
			o = strings.TrimSuffix(value, `\`)
		}
	}
	switch {
	case cn != "" && o != "":
		return o + " " + cn
	case cn+o != "":
		return cn + o
	}
	return dn
}

func (r Report) backupLine() Line {
	l := Line{Name: "Backup", State: Bad, Hint: "systemctl status strongroom-snapshot strongroom-verify; docs/backup.md"}
	b := r.Backup
	if b == nil {
		if why := r.why("backups"); why != "" {
			return Line{Name: l.Name, State: Unknown, Text: why}
		}
		l.Text, l.Hint = "never taken", "name a place in [backup] of appliance.toml: docs/backup.md"
		return l
	}
	if b.StandsBy() {
		return r.standbyLine(l, r.At.Sub(*b.Standby))
	}
	if b.TakenAt.IsZero() {
		l.Text = "none was ever verified"
	} else {
		age := r.At.Sub(b.TakenAt)
		places := slices.Sorted(maps.Keys(b.Places))
		l.Text = fmt.Sprintf("verified, %s old · %s · in %s", span(age), words.Size(b.Size), strings.Join(places, " and "))
		switch {
		case evidence.FromTheFuture(age):
			l.Text, l.Hint = fmt.Sprintf("the newest verified one is dated %s after now", span(-age)), clockHint
		case b.InDoubt:
			l.Text, l.Hint = "the newest verified one was taken by a clock in doubt: nobody knows how old it is", clockHint
		case age > evidence.BackupStale:
		case age > evidence.BackupLate:
			l.State = Attention
		default:
			l.State, l.Hint = Well, ""
		}
	}
	if b.ClockDoubted > 0 {
		l.Text, l.Hint = l.Text+" · the clock is in doubt, so nothing is deleted", clockHint
		if l.State == Well {
			l.State = Attention
		}
	}
	if f := b.CanaryFailure; f != nil {
		l.Text += " · no canary, a drill will fail: " + words.Line(f.Error, maxText)
		if l.State == Well {
			l.State, l.Hint = Attention, "journalctl -u strongroom-snapshot; docs/drill.md"
		}
	}
	if f := b.VerifyFailure; f != nil {
		l.State, l.Text = Bad, l.Text+" · verifying failed: "+words.Line(f.Error, maxText)
	}
	if f := b.TakeFailure; f != nil {
		l.State, l.Text = Bad, l.Text+" · taking failed: "+words.Line(f.Error, maxText)
	}
	if l.State == Bad && l.Hint == "" {
		l.Hint = "journalctl -u strongroom-snapshot -u strongroom-verify"
	}
	return l
}

// standbyLine is the backup's on a node that leaves it to the leader; since is
// how long ago its job has looked whether there is one.
func (r Report) standbyLine(l Line, since time.Duration) Line {
	l.Text = fmt.Sprintf("the leader takes them; this node stood aside %s ago", span(since))
	switch {
	case evidence.FromTheFuture(since):
		l.Text, l.Hint = fmt.Sprintf("the leader takes them; this node stood aside %s after now", span(-since)), clockHint
	case since > evidence.BackupStale:
	case since > evidence.BackupLate:
		l.State = Attention
	default:
		l.State, l.Hint = Well, ""
	}
	return l
}

// clockHint is for what is dated after now.
const clockHint = "timedatectl; docs/backup.md, the clock"

func (r Report) drillLine() Line {
	l := Line{Name: "Drill", State: Attention, Hint: "systemctl start strongroom-drill"}
	d := r.Drill
	if f := r.DrillFetch; f != nil {
		l.State = Bad
		l.Text = fmt.Sprintf("FAILED %s ago, it could not begin: %s", span(r.At.Sub(f.At)), words.Line(f.Error, maxText))
		return l
	}
	if d == nil {
		l.Text = "never done: nobody knows whether the backup restores"
		if why := r.why("drill"); why != "" {
			l.State, l.Text, l.Hint = Unknown, why, ""
		}
		return l
	}
	age := r.At.Sub(d.FinishedAt)
	if !d.Passed {
		l.State, l.Hint = Bad, "strongroom drill; docs/drill.md"
		var names []string
		for _, c := range d.Failed() {
			names = append(names, c.Name)
		}
		if d.Failure != "" {
			names = append(names, words.Line(d.Failure, maxText))
		}
		l.Text = fmt.Sprintf("%s %s ago: %s", d.Verdict(), span(age), strings.Join(names, ", "))
		return l
	}
	l.Text = fmt.Sprintf("passed %s ago · RPO %s, RTO %s", span(age), span(d.RPO()), span(d.RTO()))
	switch {
	case evidence.FromTheFuture(age):
		l.State, l.Text, l.Hint = Bad, fmt.Sprintf("passed %s after now: nobody knows when", span(-age)), clockHint
	case age <= evidence.DrillLate:
		l.State, l.Hint = Well, ""
	}
	return l
}

func (r Report) escrowLine() Line {
	l := Line{Name: "Escrow", State: Bad, Hint: "docs/escrow.md: strongroom escrow challenge, answer it elsewhere, then strongroom escrow confirm"}
	e := r.Escrow
	switch {
	case e == nil && r.why("escrow") != "":
		return Line{Name: l.Name, State: Unknown, Text: r.why("escrow")}
	case e == nil:
		l.Text, l.Hint = "none: nobody could rebuild this machine", "strongroom-installer install"
	case e.Confirmed():
		last := e.Files[0].ConfirmedAt
		for _, f := range e.Files {
			if f.ConfirmedAt.Before(last) {
				last = f.ConfirmedAt
			}
		}
		l = Line{Name: l.Name, State: Well, Text: fmt.Sprintf("%s confirmed to open off this machine · since %s", words.Count(len(e.Files), "file"), last.UTC().Format("2 Jan 2006"))}
	default:
		l.Text = "not confirmed, the copy on this disk may be the only one: " + strings.Join(e.Unconfirmed(), ", ")
	}
	return l
}

func (r Report) doctorLine() Line {
	l := Line{Name: "Doctor", State: Attention, Hint: "strongroom doctor"}
	d := r.Doctor
	if d == nil {
		l.Text = "never ran"
		if why := r.why("doctor"); why != "" {
			l.State, l.Text = Unknown, why
		}
		return l
	}
	age := r.At.Sub(d.At)
	l.Text = fmt.Sprintf("%d passed, %s, %d failed · %s ago", d.Pass, words.Count(d.Warn, "warning"), d.Fail, span(age))
	switch {
	case d.Fail > 0:
		l.State, l.Text = Bad, l.Text+": "+strings.Join(d.Failing, ", ")
	case age > doctorStale:
	case d.Warn > 0:
	case d.Skip > 0:
		l.Text += fmt.Sprintf(" · %d could not be looked at", d.Skip)
	default:
		l.State, l.Hint = Well, ""
	}
	return l
}

// auditLine is what became of the audit history. What was lost is shown until somebody
// acknowledges it.
func (r Report) auditLine() Line {
	a := r.Audit
	l := Line{Name: "Audit", State: Well, Text: fmt.Sprintf("%s written · %s kept", words.Count(len(a.Written), "log"), words.Count(len(a.Files)-len(a.Logs), "rotated one"))}
	if n := len(a.Losses); n > 0 {
		last := a.Losses[n-1]
		l.State, l.Text, l.Hint = Bad, fmt.Sprintf("HISTORY LOST: %s", last), "docs/monitoring.md, audit logs; then strongroom audit acknowledge"
		if n > 1 {
			l.Text += fmt.Sprintf(" · and %d more", n-1)
		}
	}
	if n := len(a.Faults); n > 0 {
		l.State, l.Hint = Bad, a.Faults[0].Hint
		if len(a.Losses) == 0 {
			l.Text = ""
		} else {
			l.Text = " · " + l.Text
		}
		l.Text = a.Faults[0].Text + l.Text
	}
	if h := r.Vault; l.State == Well && len(a.Written) == 0 && h != nil && h.Initialized && !h.Sealed && !h.Standby && r.At.Sub(a.Begun) > evidence.WatchLate {
		l.State, l.Text, l.Hint = Attention, "no log was seen to grow when Vault was asked · "+l.Text, "journalctl -u strongroom-audit-watch; docs/monitoring.md, audit logs"
	}
	return r.watched(l, a.At, a.Begun, "strongroom-audit-watch")
}

func (r Report) firewallLine() Line {
	l := Line{Name: "Firewall", State: Well, Text: "in force"}
	for n, f := range r.Firewall.Faults {
		if n == 0 {
			l.State, l.Text, l.Hint = Bad, f.Text, f.Hint
		} else {
			l.Text += " · " + f.Text
		}
	}
	return r.watched(l, r.Firewall.At, r.Firewall.At, "strongroom-firewall-watch")
}

// watched says of a look of every minute that it is too long ago; begun is when it was
// to begin.
func (r Report) watched(l Line, at, begun time.Time, unit string) Line {
	if at.IsZero() {
		at = begun
	}
	age := r.At.Sub(at)
	if age <= evidence.WatchLate && !evidence.FromTheFuture(age) {
		return l
	}
	if l.State == Well {
		l.State, l.Hint = Attention, "systemctl status "+unit
	}
	l.Text += fmt.Sprintf(" · last looked at %s ago", span(age))
	return l
}

func (r Report) lockedOutLine() Line {
	l := Line{Name: "Log-ins", State: Attention, Hint: "docs/locked-out.md"}
	l.Text = words.Line(words.Count(r.LockedOut.Total, "name")+" locked after wrong passwords: "+words.List(r.LockedOut.Names, 3), 200)
	return l
}

func (r Report) keysLine() Line {
	k := r.Keys
	l := Line{Name: "API keys", State: Well, Text: words.Count(k.Count, "key") + ", none failing"}
	if need := k.NeedSomebody(); len(need) > 0 {
		l.State, l.Text = Attention, fmt.Sprintf("%s, %d need somebody", words.Count(k.Count, "key"), len(need))
		if slices.ContainsFunc(need, func(k evidence.Key) bool { return k.State().Severity == condition.Bad }) {
			l.State = Bad
		}
		l.Hint = "below; docs/rotate-keys.md"
	}
	if k.Fence != "" {
		l.State, l.Hint = Bad, "vault write -f apikeys/reconcile"
		l.Text += " · nothing rotates: " + words.Line(k.Fence, maxText)
	}
	if k.Clock != "ok" {
		l.State, l.Hint = Bad, "set the clock right, then vault write apikeys/config accept_clock=true"
		l.Text += " · the clock is " + k.Clock
	}
	return l
}

// Worst is the gravest of the lines' states.
func (r Report) Worst() State {
	worst := Well
	rank := map[State]int{Well: 0, Unknown: 1, Attention: 2, Bad: 3}
	for _, l := range r.Lines {
		if rank[l.State] > rank[worst] {
			worst = l.State
		}
	}
	return worst
}
