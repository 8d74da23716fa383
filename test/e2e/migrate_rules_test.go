package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"strongroom.example/appliance/secrets/migrate/rules"
	"strongroom.example/test/vaulttest"
)

// Our use of gitleaks' rules finds what gitleaks finds, and the rules are those
// of the release that test/oracles pins.
func TestRulesAgreeWithGitleaks(t *testing.T) {
	program := goOracle(t, "gitleaks")
	source, err := exec.Command(program, "rules").Output()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "appliance", "secrets", "migrate", "rules", "gitleaks.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(source, ours) {
		t.Fatal("appliance/secrets/migrate/rules/gitleaks.toml is not the file of the pinned gitleaks: copy it anew")
	}
	set, err := rules.Default()
	if err != nil {
		t.Fatal(err)
	}
	texts := assignments(7, 4000)
	found := 0
	for i, want := range oracle[[]string](t, exec.Command(program), texts) {
		got := set.Match(texts[i])
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%q: %q, gitleaks has %q", texts[i], got, want)
		}
		found += len(want)
	}
	if found < len(texts)/10 {
		t.Errorf("only %d findings in %d texts show nothing", found, len(texts))
	}
	t.Logf("%d texts, %d findings", len(texts), found)
}

// assignments are random ones with names, prefixes and alphabets of tokens.
func assignments(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 2))
	names := []string{"API_KEY", "DB_PASSWORD", "LOG_LEVEL", "GITHUB_TOKEN", "STRIPE_SECRET", "SLACK_WEBHOOK", "ALIBABA_SECRET", "ADAFRUIT_KEY", "PUBLIC_KEY", "CSRF_TOKEN", "AUTH"}
	prefixes := []string{"", "", "gh" + "p_", "AK" + "IA", "sk_" + "live_", "xox" + "b-", "glp" + "at-", "SG" + ".", "npm" + "_", "dp.pt.", "hv" + "s.", "AI" + "za", "lin_api_", "eyJ", "pat", "A3-", "https://u:p@h/"}
	alphabets := []string{
		"0123456789abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
		"abcdefghijklmnopqrstuvwxyz", "abcXYZ019-_.=+/", "x", "0123456789",
	}
	lengths := []int{4, 8, 16, 17, 20, 32, 35, 36, 37, 40, 43, 59, 64}
	formats := []string{`%s="%s"`, `%s=%s`, `%s: '%s'`, `%s = "${%s}"`, `%s=%s # gitleaks`}
	var texts []string
	for range n {
		alphabet := alphabets[r.IntN(len(alphabets))]
		value := []byte(prefixes[r.IntN(len(prefixes))])
		for range lengths[r.IntN(len(lengths))] {
			value = append(value, alphabet[r.IntN(len(alphabet))])
		}
		texts = append(texts, fmt.Sprintf(formats[r.IntN(len(formats))], names[r.IntN(len(names))], value))
	}
	return texts
}
