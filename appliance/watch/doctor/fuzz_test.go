package doctor

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/config/machine"
)

func FuzzSockets(f *testing.F) {
	f.Add(socketHead + tableLine("0100007F:2008", tcpListen, 996) + any6(443, tcpListen, 0))
	f.Add(socketHead + "x\n")
	f.Fuzz(func(t *testing.T, table string) {
		s, err := parseSockets("tcp", table)
		if err != nil {
			return
		}
		for _, one := range s {
			if !one.addr.IsValid() || one.uid < 0 && !strings.Contains(table, "-") {
				t.Errorf("socket %+v of %q", one, table)
			}
		}
	})
}

func FuzzRuleset(f *testing.F) {
	f.Add(`{"nftables":[{"chain":{"family":"inet","table":"strongroom","name":"input","type":"filter","hook":"input","prio":0,"policy":"drop"}},{"rule":{"family":"inet","table":"strongroom","chain":"input","expr":[{"counter":null},{"accept":null}]}}]}`)
	f.Add(`{"nftables":[{"rule":{"family":"inet","table":"strongroom","chain":"input","expr":[{"match":{"right":{"range":[65535,0]}}}]}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := loadedRules([]byte(text))
		if err != nil {
			return
		}
		want := writtenRules("chain input {\ntype filter hook input priority filter; policy drop;\ncounter\n}")
		// Whatever it is, another table than the written one is a fault.
		if same := len(r) == 1 && slices.Equal(r["input"], want["input"]); same != (len(r.differences(want)) == 0) {
			t.Errorf("%q in %q", r.differences(want), text)
		}
	})
}

func FuzzVaultFile(f *testing.F) {
	f.Add("disable_mlock = true\nlistener \"tcp\" {\n address = \"127.0.0.1:8200\"\n}\n")
	f.Add("listener = 1")
	f.Add("user_lockout \"all\" { disable_lockout = \"false\" }")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parseVaultFile([]byte(text))
		if err == nil && v == nil {
			t.Error("neither a file nor an error")
		}
	})
}

func FuzzSecrets(f *testing.F) {
	f.Add("export VAULT_TOKEN=" + token)
	f.Add("password = \"x\"\npostgres://a:bcdefgh@c/d\nAGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ")
	f.Fuzz(func(t *testing.T, text string) {
		for _, what := range append(secretsIn([]byte(text)), settingsIn([]byte(text))...) {
			if strings.Contains(what, token) {
				t.Errorf("%q quotes the secret", what)
			}
		}
		_ = unsealed([]byte(text))
	})
}

func FuzzInstalled(f *testing.F) {
	f.Add(`{"version":"1","files":[{"path":"/x","sha256":"","mode":"0644","uid":0,"gid":0}]}`)
	f.Add(`{"files":[{"mode":420}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var in installed
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		b, s := &box{files: map[string]*node{}}, &Subject{}
		s.Machine = b
		b.file(machine.ManifestFile, 0o644, 0, 0, text)
		if v := examineOne(t, *s, "drift").Verdict; v == "pass" {
			t.Errorf("files that are not there passed: %s", text)
		}
	})
}

func FuzzSurveyed(f *testing.F) {
	f.Add(`{"format":1,"at":"2026-11-24T12:00:00Z","domain":"x","tables":{"tcp":{"text":"a"}},"ruleset":{"error":"no"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		b := &box{now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
		m, front, err := Surveyed(b, []byte(text))
		if err == nil && (m == nil || front == nil) {
			t.Error("neither a machine nor an error")
		}
	})
}
