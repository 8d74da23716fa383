package generated

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"strongroom.example/plugin/provider"
)

// Parameters are refused, or every key made with them is strong and as they
// say.
func FuzzParameters(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"prefix":"a_","length":22}`, `{"alphabet":"hex","length":"32","checksum":"crc32"}`, `{"characters":"01","length":512}`,
		`{"length":1e3}`, `{"characters":"aa"}`, `{"password_policy":"x"}`, `{"prefix":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	src := rand.NewChaCha8([32]byte{2})
	p, err := New(provider.Config{Rand: src})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var params map[string]any
		if json.Unmarshal(text, &params) != nil {
			return
		}
		if p.ValidateParameters(params) != nil {
			return
		}
		key, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: params})
		if err != nil {
			t.Fatalf("accepted and then refused: %v", err)
		}
		format, err := p.(*Provider).format(params)
		if err != nil {
			t.Fatal(err)
		}
		value := key.Values[provider.PrimaryValue]
		rest, ok := strings.CutPrefix(value, format.prefix)
		if !ok || strings.Trim(rest[:format.length], format.alphabet) != "" {
			t.Fatalf("%q is not as asked for", value)
		}
		if bits := float64(format.length) * math.Log2(float64(len(format.alphabet))); bits < MinEntropyBits {
			t.Fatalf("%.0f bits", bits)
		}
	})
}
