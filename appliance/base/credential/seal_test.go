package credential_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	. "strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/config"
)

// benches runs a test on the stand-in and on systemd-creds with a TPM: what the
// one does, the other has to.
func benches(t *testing.T, test func(t *testing.T, b credtest.Bench)) {
	t.Helper()
	t.Run("stand-in", func(t *testing.T) { test(t, &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}) })
	t.Run("systemd", func(t *testing.T) { test(t, credtest.NewReal(t)) })
}

const secret = "the master key, say"

// TestConformance has each way to seal, and what may come upon the machine: what
// opens then, and what is said where it does not.
func TestConformance(t *testing.T) {
	ways := []struct {
		name   string
		flags  []string
		sealed string
	}{
		{"host", []string{"--with-key=host"}, "by the host's key"},
		{"pcr7", []string{"--with-key=tpm2", "--tpm2-pcrs=7"}, "by the TPM (PCR 7)"},
		{"both7", []string{"--with-key=host+tpm2", "--tpm2-pcrs=7"}, "by the host's key and the TPM (PCR 7)"},
		{"more", []string{"--with-key=host+tpm2", "--tpm2-pcrs=7+23"}, "by the host's key and the TPM (PCR 7, 23)"},
		{"tpm23", []string{"--with-key=tpm2", "--tpm2-pcrs=23"}, "by the TPM (PCR 23)"},
		{"ours", []string{"--with-key=host+tpm2", "--tpm2-pcrs=23"}, "by the host's key and the TPM (PCR 23)"},
		{"empty", []string{"--with-key=tpm2", "--tpm2-pcrs="}, "by the TPM (no PCR)"},
	}
	for _, c := range []struct {
		name string
		then func(credtest.Bench)
		want map[string]error // of those that do not open
	}{
		{"nothing", func(credtest.Bench) {}, map[string]error{"empty": ErrRefused}},
		{"Secure Boot update", credtest.Bench.SecureBootUpdate,
			map[string]error{"pcr7": ErrRefused, "both7": ErrRefused, "more": ErrRefused, "empty": ErrRefused}},
		{"power cuts", credtest.Bench.PowerCuts,
			map[string]error{"pcr7": ErrLockout, "both7": ErrLockout, "more": ErrLockout, "tpm23": ErrLockout, "ours": ErrLockout, "empty": ErrRefused}},
		{"another TPM", credtest.Bench.OtherTPM,
			map[string]error{"pcr7": ErrRefused, "both7": ErrRefused, "more": ErrRefused, "tpm23": ErrRefused, "ours": ErrRefused, "empty": ErrRefused}},
		{"no TPM", credtest.Bench.NoTPM,
			map[string]error{"pcr7": ErrTPMGone, "both7": ErrTPMGone, "more": ErrTPMGone, "tpm23": ErrTPMGone, "ours": ErrTPMGone, "empty": ErrRefused}},
		{"another host's key", credtest.Bench.OtherHostKey,
			map[string]error{"host": ErrHostKey, "both7": ErrHostKey, "more": ErrHostKey, "ours": ErrHostKey, "empty": ErrRefused}},
	} {
		t.Run(c.name, func(t *testing.T) {
			benches(t, func(t *testing.T, b credtest.Bench) {
				sealed := map[string][]byte{}
				for _, w := range ways {
					out, err := b.Run(t.Context(), []byte(secret), append(append([]string{"encrypt"}, w.flags...), "--name=x", "-", "-")...)
					if err != nil {
						t.Fatal(err)
					}
					if s, ok := Inspect(out); !ok || s.String() != w.sealed || (s.Way == TPM) != (w.name == "ours") || (s.Way == Host) != (w.name == "host") {
						t.Errorf("%s: it is seen as sealed %v, %t", w.name, s, ok)
					}
					sealed[w.name] = out
				}
				c.then(b)
				for _, w := range ways {
					plain, err := Unseal(t.Context(), b.Run, "x", sealed[w.name])
					if want := c.want[w.name]; !errors.Is(err, want) || (err == nil) != (string(plain) == secret) {
						t.Errorf("%s: %q, %v; want %v", w.name, plain, err, want)
					}
					if err != nil && Hint(err) == "" {
						t.Errorf("%s: nobody says what to do about %v", w.name, err)
					}
				}
			})
		})
	}
}

// TestSealSurvives is the whole: chosen, sealed, and open after what the machine
// is to survive.
func TestSealSurvives(t *testing.T) {
	benches(t, func(t *testing.T, b credtest.Bench) {
		w, err := Choose(t.Context(), b.Run, config.SealAuto)
		if err != nil || w != TPM {
			t.Fatalf("chosen: %v, %v", w, err)
		}
		sealed, err := Seal(t.Context(), b.Run, w, "x", []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		b.SecureBootUpdate()
		if plain, err := Unseal(t.Context(), b.Run, "x", sealed); err != nil || string(plain) != secret {
			t.Errorf("after a Secure Boot update: %q, %v", plain, err)
		}
		if plain, err := Unseal(t.Context(), b.Run, "y", sealed); err == nil {
			t.Errorf("under another name: %q", plain)
		}
		empty, err := Seal(t.Context(), b.Run, w, "none", nil)
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := Unseal(t.Context(), b.Run, "none", empty); err != nil || len(plain) != 0 {
			t.Errorf("an empty one: %q, %v", plain, err)
		}
	})
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name, setting string
		tpm           *credtest.TPM
		want          Way
		err           error
		says          string
	}{
		{"a TPM", config.SealAuto, &credtest.TPM{Firmware: true}, TPM, nil, ""},
		{"none", config.SealAuto, nil, Host, nil, ""},
		{"firmware knows none", config.SealAuto, &credtest.TPM{}, Host, nil, ""},
		{"in lockout", config.SealAuto, &credtest.TPM{Firmware: true, Lockout: true}, "", ErrLockout, ""},
		{"wanted", config.SealTPM, &credtest.TPM{Firmware: true}, TPM, nil, ""},
		{"wanted, none", config.SealTPM, nil, "", ErrNoTPM, "it lacks firmware, driver, subsystem"},
		{"wanted, firmware", config.SealTPM, &credtest.TPM{}, "", ErrNoTPM, "it lacks firmware"},
		{"wanted, lockout", config.SealTPM, &credtest.TPM{Firmware: true, Lockout: true}, "", ErrLockout, ""},
		{"host", config.SealHost, &credtest.TPM{Firmware: true}, Host, nil, ""},
		{"host, lockout", config.SealHost, &credtest.TPM{Firmware: true, Lockout: true}, Host, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &credtest.Machine{TPM: c.tpm}
			got, err := Choose(t.Context(), m.Run, c.setting)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v", got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.says) || Hint(err) == "") {
				t.Errorf("%v; hint %q", err, Hint(err))
			}
			if c.setting == config.SealHost && len(m.Calls) > 0 {
				t.Errorf("the TPM is asked: %q", m.Calls)
			}
			for _, call := range m.Calls {
				if slices.ContainsFunc(call, func(a string) bool { return strings.Contains(a, "host") }) {
					t.Errorf("the host's key is made by looking: %q", call)
				}
			}
		})
	}
}

// A TPM that says yes and seals what does not open is none for auto, and refused
// where it is wanted. A systemd without its TPM library is such a one.
func TestChooseTries(t *testing.T) {
	for name, broken := range map[string]Run{
		"no library": func(_ context.Context, _ []byte, args ...string) ([]byte, error) {
			if args[0] == "has-tpm2" {
				return []byte("yes\n"), nil
			}
			return nil, errors.New("TPM2 support is not installed")
		},
		"opens nothing": func(ctx context.Context, in []byte, args ...string) ([]byte, error) {
			m := &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}
			if args[0] == "decrypt" {
				m.TPM.ID++
			}
			return m.Run(ctx, in, args...)
		},
	} {
		if w, err := Choose(t.Context(), broken, config.SealAuto); w != Host || err != nil {
			t.Errorf("%s: auto: %q, %v", name, w, err)
		}
		if w, err := Choose(t.Context(), broken, config.SealTPM); w != "" || !errors.Is(err, ErrNoTPM) {
			t.Errorf("%s: tpm: %q, %v", name, w, err)
		}
	}
}

// No answer is not "no".
func TestChooseUnanswered(t *testing.T) {
	for name, run := range map[string]Run{
		"no program": func(context.Context, []byte, ...string) ([]byte, error) { return nil, errors.New("not found") },
		"fails by chance": func(_ context.Context, _ []byte, args ...string) ([]byte, error) {
			if args[0] == "has-tpm2" {
				return []byte("yes\n"), nil
			}
			return nil, errors.New("exit status 1: Failed to open session in TPM: tpm:warn(2.0): out of memory for session contexts")
		},
		"says nothing": func(context.Context, []byte, ...string) ([]byte, error) { return nil, nil },
		"says else": func(context.Context, []byte, ...string) ([]byte, error) {
			return []byte("Unknown command verb has-tpm2.\n"), errors.New("exit status 1")
		},
	} {
		if w, err := Choose(t.Context(), run, config.SealAuto); w != "" || !errors.Is(err, ErrNoAnswer) || Hint(err) == "" {
			t.Errorf("%s: %q, %v", name, w, err)
		}
	}
}

// What does not open at once, opens with something else, is no credential, or is
// sealed otherwise than asked is never given out.
func TestSealIsProved(t *testing.T) {
	m := &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}
	for name, run := range map[string]Run{
		"does not open": func(ctx context.Context, in []byte, args ...string) ([]byte, error) {
			if args[0] == "decrypt" {
				return nil, errors.New("exit status 1: TPM2 PCR bank invalid or not supported")
			}
			return m.Run(ctx, in, args...)
		},
		"opens with something else": func(ctx context.Context, in []byte, args ...string) ([]byte, error) {
			if args[0] == "decrypt" {
				return []byte("other"), nil
			}
			return m.Run(ctx, in, args...)
		},
		"nothing":      func(context.Context, []byte, ...string) ([]byte, error) { return nil, nil },
		"in the clear": func(_ context.Context, in []byte, _ ...string) ([]byte, error) { return bytes.Clone(in), nil },
		"another way": func(ctx context.Context, in []byte, args ...string) ([]byte, error) {
			if args[0] == "encrypt" {
				args = []string{"encrypt", "--with-key=host", args[3], "-", "-"}
			}
			return m.Run(ctx, in, args...)
		},
	} {
		if sealed, err := Seal(t.Context(), run, TPM, "x", []byte(secret)); err == nil || sealed != nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %d bytes, %v", name, len(sealed), err)
		}
	}
}

func TestInspectUnknown(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "text": "a password", "short": "WhxqJg==", "a newer systemd's": strings.Repeat("QUJD", 40),
	} {
		if s, ok := Inspect([]byte(text)); ok {
			t.Errorf("%s: %v", name, s)
		}
	}
}
