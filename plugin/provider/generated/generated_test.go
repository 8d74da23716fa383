package generated

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math"
	mrand "math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"strongroom.example/plugin/provider"
)

func build(t *testing.T, settings map[string]any, policy func(context.Context, string) (string, error)) provider.Provider {
	t.Helper()
	p, err := New(provider.Config{Name: "g", Settings: settings, Now: time.Now, Rand: rand.Reader, Password: policy})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func create(t *testing.T, p provider.Provider, params map[string]any) string {
	t.Helper()
	k, err := p.Create(context.Background(), provider.CreateRequest{Name: "n1", Parameters: params})
	if err != nil {
		t.Fatal(err)
	}
	if k.ID != "n1" || k.Name != "n1" || !k.Expires.IsZero() || len(k.Values) != 1 {
		t.Fatalf("unexpected shape: %#v", k)
	}
	return k.Values[provider.PrimaryValue]
}

func TestFormats(t *testing.T) {
	for _, tc := range []struct {
		name             string
		settings, params map[string]any
		prefix, alphabet string
		length           int
		checksum         bool
	}{
		{"defaults", nil, nil, "", base62, 32, false},
		{"as GitHub's", map[string]any{"prefix": "ghp_", "length": 30, "checksum": "crc32"}, nil, "ghp_", base62, 30, true},
		{"key overrides provider", map[string]any{"prefix": "a_", "length": 40}, map[string]any{"prefix": "b_", "length": "50"}, "b_", base62, 50, false},
		{"hex", nil, map[string]any{"alphabet": "hex", "length": 32}, "", "0123456789abcdef", 32, false},
		{"own characters replace the provider's alphabet", map[string]any{"alphabet": "hex", "length": 64}, map[string]any{"characters": "xyz.!", "length": 60}, "", "xyz.!", 60, false},
		{"two characters", nil, map[string]any{"characters": "01", "length": 128}, "", "01", 128, false},
		{"alphabet replaces the provider's policy", map[string]any{"password_policy": "p"}, map[string]any{"alphabet": "base58"}, "", alphabetOf("base58"), 32, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := build(t, tc.settings, func(context.Context, string) (string, error) { return "", errors.New("not asked") })
			if err := p.ValidateParameters(tc.params); err != nil {
				t.Fatal(err)
			}
			got := create(t, p, tc.params)
			rest, ok := strings.CutPrefix(got, tc.prefix)
			if !ok {
				t.Fatalf("%q lacks the prefix %q", got, tc.prefix)
			}
			want := tc.length
			if tc.checksum {
				want += 6
			}
			if len(rest) != want {
				t.Fatalf("%q has %d characters after the prefix, want %d", got, len(rest), want)
			}
			if tc.checksum && Checksum(rest[:tc.length]) != rest[tc.length:] {
				t.Fatalf("%q: checksum does not match", got)
			}
			if strings.Trim(rest[:tc.length], tc.alphabet) != "" {
				t.Fatalf("%q has characters outside of %q", got, tc.alphabet)
			}
			if got == create(t, p, tc.params) {
				t.Fatal("the same key twice")
			}
		})
	}
}

// The token is one that GitHub's format is commonly explained with.
func TestChecksumVector(t *testing.T) {
	const token = "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"
	if got, want := Checksum(token[4:34]), token[34:]; got != want {
		t.Fatalf("checksum %q, want %q", got, want)
	}
	if got := Checksum(""); got != "000000" {
		t.Fatalf("leading zeros: %q", got)
	}
}

// Every byte sequence is equally likely, so over all byte values each
// character must come out equally often, exactly.
func TestDrawIsUnbiased(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, name := range alphabetNames {
		alphabet := alphabetOf(name)
		kept := 256 / (1 << int(math.Ceil(math.Log2(float64(len(alphabet)))))) * len(alphabet)
		s, err := draw(bytes.NewReader(all), alphabet, kept)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, c := range alphabet {
			if got, want := strings.Count(s, string(c)), kept/len(alphabet); got != want {
				t.Errorf("%s: %q %d times out of %d, want %d", name, c, got, kept, want)
			}
		}
	}
}

// A chi-squared test over the whole path, with a seeded source so that it
// never flickers. 61 degrees of freedom: 99.9% lie below 100.9.
func TestUniform(t *testing.T) {
	src := mrand.NewChaCha8([32]byte{1})
	counts := map[rune]float64{}
	const n = 512 * 400
	for range 400 {
		s, err := draw(src, base62, 512)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range s {
			counts[c]++
		}
	}
	chi := 0.0
	for _, c := range base62 {
		d := counts[c] - n/62.0
		chi += d * d / (n / 62.0)
	}
	if chi > 100.9 {
		t.Fatalf("chi-squared %.1f over 61 degrees of freedom", chi)
	}
}

func TestRefusals(t *testing.T) {
	policy := func(context.Context, string) (string, error) { return "", nil }
	for _, tc := range []struct {
		name     string
		settings map[string]any
		want     []string
	}{
		{"too short", map[string]any{"length": 21}, []string{"settings.length", "125 bits", "128", "at least 22 characters"}},
		{"too short for hex", map[string]any{"length": 31, "alphabet": "hex"}, []string{"124 bits", "at least 32 characters"}},
		{"zero", map[string]any{"length": 0}, []string{"settings.length: 0 is not within 1 to 512"}},
		{"too long", map[string]any{"length": 513}, []string{"513 is not within"}},
		{"unknown setting", map[string]any{"lenght": 40}, []string{"settings.lenght: is not known"}},
		{"unknown alphabet", map[string]any{"alphabet": "klingon"}, []string{`"klingon" is not one of base62`}},
		{"prefix with a space", map[string]any{"prefix": "a b"}, []string{`settings.prefix: "a b"`}},
		{"prefix too long", map[string]any{"prefix": strings.Repeat("p", 33)}, []string{"33 bytes, at most 32"}},
		{"doubled character", map[string]any{"characters": "abca"}, []string{`'a' is there twice`}},
		{"one character", map[string]any{"characters": "a"}, []string{"at least 2"}},
		{"no character", map[string]any{"characters": ""}, []string{"at least 2"}},
		{"quote", map[string]any{"characters": "ab'"}, []string{"not allowed"}},
		{"not ascii", map[string]any{"characters": "abä"}, []string{"not allowed"}},
		{"both alphabets", map[string]any{"characters": "ab", "alphabet": "hex", "length": 200}, []string{"cannot stand beside alphabet"}},
		{"checksum", map[string]any{"checksum": "md5"}, []string{`"md5" is not one of none, crc32`}},
		{"policy beside all else", map[string]any{"password_policy": "p", "length": 40, "alphabet": "hex"}, []string{"settings.length: cannot", "settings.alphabet: cannot"}},
		{"empty policy", map[string]any{"password_policy": ""}, []string{"password_policy: must not be empty"}},
		{"all at once", map[string]any{"length": "x", "prefix": 1, "nope": true}, []string{"settings.length", "settings.prefix", "settings.nope"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(provider.Config{Settings: tc.settings, Rand: rand.Reader, Password: policy})
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %q in it", err, want)
				}
			}
			p := build(t, nil, policy)
			if err := p.ValidateParameters(tc.settings); err == nil {
				t.Error("the same is accepted as a key's parameters")
			}
			var pe *provider.Error
			if _, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: tc.settings}); !errors.As(err, &pe) || pe.Kind != provider.KindRejected {
				t.Errorf("create with it: %v, want rejected", err)
			}
		})
	}
	t.Run("credential and no randomness", func(t *testing.T) {
		_, err := New(provider.Config{Credential: map[string]string{"token": "canary-7"}})
		if err == nil || !strings.Contains(err.Error(), "no credential") || !strings.Contains(err.Error(), "randomness") || strings.Contains(err.Error(), "canary") {
			t.Fatal(err)
		}
	})
	t.Run("policy without Vault", func(t *testing.T) {
		_, err := New(provider.Config{Settings: map[string]any{"password_policy": "p"}, Rand: rand.Reader})
		if err == nil || !strings.Contains(err.Error(), "no Vault") {
			t.Fatal(err)
		}
	})
}

func TestPasswordPolicy(t *testing.T) {
	answer, fault := "", error(nil)
	p := build(t, map[string]any{"prefix": "svc_", "checksum": "crc32"}, func(_ context.Context, name string) (string, error) {
		if name != "strong" {
			t.Errorf("asked for policy %q", name)
		}
		return answer, fault
	})
	params := map[string]any{"password_policy": "strong"}
	answer = "aB3-aB3-aB3-aB3-aB3-"
	if got, want := create(t, p, params), "svc_"+answer+Checksum(answer); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	for _, weak := range []string{"", "1234567890123456789012345678901234567", "short-A1", strings.Repeat("a", 27), "a"} {
		answer = weak
		_, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: params})
		if provider.KindOf(err) != provider.KindRejected || !strings.Contains(err.Error(), "too weak") {
			t.Errorf("%q: %v, want rejected as too weak", weak, err)
		}
		if len(weak) > 1 && strings.Contains(err.Error(), weak) {
			t.Errorf("the error quotes the password: %v", err)
		}
	}
	fault = errors.New("canary-in-cause")
	_, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: params})
	if provider.KindOf(err) != provider.KindTransient || !errors.Is(err, fault) || strings.Contains(err.Error(), "canary") {
		t.Fatalf("%v, want transient, cause kept but not shown", err)
	}
}

func TestFailures(t *testing.T) {
	stuck := iotest.ErrReader(errors.New("no entropy"))
	for _, tc := range []struct {
		name string
		rand io.Reader
		kind provider.Kind
		key  string
	}{
		{"randomness fails", stuck, provider.KindTransient, "n"},
		{"randomness ends", strings.NewReader("abc"), provider.KindTransient, "n"},
		{"randomness is stuck", always(0xff), provider.KindTransient, "n"},
		{"bad name", rand.Reader, provider.KindRejected, "a/b"},
		{"no name", rand.Reader, provider.KindRejected, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := New(provider.Config{Rand: tc.rand})
			if err != nil {
				t.Fatal(err)
			}
			k, err := p.Create(t.Context(), provider.CreateRequest{Name: tc.key})
			if provider.KindOf(err) != tc.kind || k.Values != nil {
				t.Fatalf("%v, %v; want kind %v and no key", k, err, tc.kind)
			}
		})
	}
	p := build(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Create(ctx, provider.CreateRequest{Name: "n"}); provider.KindOf(err) != provider.KindTransient {
		t.Fatalf("cancelled create: %v", err)
	}
	if err := p.Revoke(ctx, nil, "n"); provider.KindOf(err) != provider.KindTransient {
		t.Fatalf("cancelled revoke: %v", err)
	}
}

// always is a source of randomness that gives the same byte for ever.
type always byte

func (a always) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(a)
	}
	return len(p), nil
}

func TestWhatIsNotThere(t *testing.T) {
	p := build(t, nil, nil)
	caps := p.Capabilities()
	if caps != (provider.Capabilities{Mint: true, Revoke: true, Overlap: true, Local: true}) {
		t.Fatalf("capabilities %+v", caps)
	}
	_, err1 := p.List(t.Context(), nil, "")
	err2 := p.Test(t.Context(), nil, provider.Key{})
	_, err3 := p.LastUsed(t.Context(), nil, "n")
	for _, err := range []error{err1, err2, err3} {
		if provider.KindOf(err) != provider.KindUnsupported {
			t.Errorf("%v, want unsupported", err)
		}
	}
	for range 2 {
		if err := p.Revoke(t.Context(), nil, "n"); err != nil {
			t.Errorf("revoke: %v", err)
		}
	}
}
