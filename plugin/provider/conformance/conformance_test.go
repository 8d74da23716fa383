package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
	"strongroom.example/plugin/provider/httpprov"
)

// The suite is worth something only if it fails for providers that are wrong.
// Each flaw below is run in a process of its own, which must fail in the case
// that is named.
func TestSuiteFindsFlaws(t *testing.T) {
	for name, f := range flaws() {
		t.Run(name, func(t *testing.T) {
			found := strings.ReplaceAll(f.found, " ", "_")
			cmd := exec.Command(os.Args[0], "-test.run=^TestFlawed$/^"+regexp.QuoteMeta(found), "-test.v")
			cmd.Env = append(os.Environ(), flawVariable+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("the flaw is not found: %v", err)
			}
			if want := "--- FAIL: TestFlawed/" + found; !strings.Contains(string(out), want) {
				t.Fatalf("it is not found where it should be (%s):\n%s", want, out)
			}
		})
	}
}

const flawVariable = "CONFORMANCE_FLAW"

type flaw struct {
	found string // the case that must fail
	wrap  func(p provider.Provider, f *conformance.Fake) provider.Provider
}

// flawed passes everything on, except for what is replaced.
type flawed struct {
	provider.Provider
	create func(ctx context.Context, req provider.CreateRequest) (provider.Key, error)
	list   func(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error)
	test   func(ctx context.Context, params map[string]any, key provider.Key) error
	revoke func(ctx context.Context, params map[string]any, id string) error
}

func (f *flawed) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	if f.create != nil {
		return f.create(ctx, req)
	}
	return f.Provider.Create(ctx, req)
}

func (f *flawed) List(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
	if f.list != nil {
		return f.list(ctx, params, prefix)
	}
	return f.Provider.List(ctx, params, prefix)
}

func (f *flawed) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	if f.test != nil {
		return f.test(ctx, params, key)
	}
	return f.Provider.Test(ctx, params, key)
}

func (f *flawed) Revoke(ctx context.Context, params map[string]any, id string) error {
	if f.revoke != nil {
		return f.revoke(ctx, params, id)
	}
	return f.Provider.Revoke(ctx, params, id)
}

func flaws() map[string]flaw {
	return map[string]flaw{
		"repeats a lost create": {"create: connection lost after the key was made", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, create: func(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
				key, err := p.Create(ctx, req)
				if err != nil && provider.KindOf(err) == provider.KindUncertain {
					return p.Create(ctx, req)
				}
				return key, err
			}}
		}},
		"calls a lost create harmless": {"create: 500 after the key was made", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, create: func(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
				key, err := p.Create(ctx, req)
				var e *provider.Error
				if errors.As(err, &e) && e.Kind == provider.KindUncertain {
					e.Kind = provider.KindTransient
				}
				return key, err
			}}
		}},
		"quotes the credential": {"create: the answer echoes the secrets", func(p provider.Provider, f *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, create: func(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
				key, err := p.Create(ctx, req)
				var e *provider.Error
				if errors.As(err, &e) {
					e.Err = fmt.Errorf("sent with %s", f.Credential[0])
				}
				return key, err
			}}
		}},
		"returns another error": {"list: 500", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, list: func(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
				keys, err := p.List(ctx, params, prefix)
				if err != nil {
					err = fmt.Errorf("list: %w", err)
				}
				return keys, err
			}}
		}},
		"ignores the prefix": {"list goes by prefix", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, list: func(ctx context.Context, params map[string]any, _ string) ([]provider.RemoteKey, error) {
				return p.List(ctx, params, "")
			}}
		}},
		"takes a failed list for an empty one": {"list: body is cut off", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, list: func(ctx context.Context, params map[string]any, prefix string) ([]provider.RemoteKey, error) {
				keys, err := p.List(ctx, params, prefix)
				if provider.KindOf(err) == provider.KindTransient {
					return nil, nil
				}
				return keys, err
			}}
		}},
		"blames the key for a failure": {"test: a failure is no refusal", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, test: func(ctx context.Context, params map[string]any, key provider.Key) error {
				err := p.Test(ctx, params, key)
				var e *provider.Error
				if errors.As(err, &e) {
					e.Kind = provider.KindUnauthorized
				}
				return err
			}}
		}},
		"believes every key": {"a key lives and dies", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, test: func(context.Context, map[string]any, provider.Key) error { return nil }}
		}},
		"revokes nothing": {"a key lives and dies", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, revoke: func(context.Context, map[string]any, string) error { return nil }}
		}},
		"minds that a key is gone": {"revoking what never was", func(p provider.Provider, f *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, revoke: func(ctx context.Context, params map[string]any, id string) error {
				for _, k := range f.Alive() {
					if k.ID == id {
						return p.Revoke(ctx, params, id)
					}
				}
				return &provider.Error{Op: "revoke", Kind: provider.KindNotFound, Msg: "no such key"}
			}}
		}},
		"shares one value": {"many at once", func(p provider.Provider, _ *conformance.Fake) provider.Provider {
			return &flawed{Provider: p, create: func(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
				key, err := p.Create(ctx, req)
				if err == nil && strings.HasPrefix(req.Name, "sr-many") {
					key.Values = map[string]string{provider.PrimaryValue: "the same"}
				}
				return key, err
			}}
		}},
	}
}

// The provider that the flaws are put into has none.
func TestSuitePasses(t *testing.T) {
	conformance.Run(t, conformance.Subject{New: func(t *testing.T) (provider.Provider, conformance.Service) { return simple(t) }})
}

func TestFlawed(t *testing.T) {
	f, ok := flaws()[os.Getenv(flawVariable)]
	if !ok {
		t.Skip("run by TestSuiteFindsFlaws")
	}
	conformance.Run(t, conformance.Subject{New: func(t *testing.T) (provider.Provider, conformance.Service) {
		p, fake := simple(t)
		return f.wrap(p, fake), fake
	}})
}

// simple is a service as plain as can be, and a right provider for it.
func simple(t *testing.T) (provider.Provider, *conformance.Fake) {
	t.Helper()
	f := &conformance.Fake{
		Credential: []string{"canary-simple"}, ID: func(n int) string { return fmt.Sprintf("s%d", n) },
		Refusal: func(m string) string { return fmt.Sprintf(`{"error":%s}`, conformance.Quote(m)) },
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/test" {
			if _, ok := f.ByValue(r.Header.Get("X-Key")); !ok {
				w.WriteHeader(http.StatusUnauthorized)
			}
			return
		}
		if f.Denied() || r.Header.Get("X-Auth") != f.Credential[0] {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.Method {
		case http.MethodPost:
			name, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			rec, _ := f.Create(strings.TrimPrefix(string(name), "name="), nil)
			conformance.JSON(w, http.StatusCreated, map[string]any{"id": rec.ID, "key": rec.Value})
		case http.MethodDelete:
			if !f.Delete(strings.TrimPrefix(r.URL.Path, "/keys/")) {
				w.WriteHeader(http.StatusNotFound)
			}
		default:
			items := []any{}
			for _, rec := range f.All() {
				items = append(items, map[string]any{"id": rec.ID, "name": rec.Name})
			}
			conformance.JSON(w, http.StatusOK, items)
		}
	})
	url, ca := f.Serve(t, h, conformance.ByMethod(func(r *http.Request) bool { return r.URL.Path == "/test" }))
	p, err := httpprov.New(provider.Config{
		Now: time.Now, Credential: map[string]string{"key": f.Credential[0]},
		Settings: map[string]any{
			"allow_addresses": "127.0.0.1", "ca_certificate": ca, "error_message": "$.error",
			"auth":   map[string]any{"type": "header", "headers": map[string]any{"X-Auth": "{{credential.key}}"}},
			"create": map[string]any{"url": url + "/keys", "form": map[string]any{"name": "{{name}}"}, "id": "$.id", "values": map[string]any{"key": "$.key"}},
			"list":   map[string]any{"url": url + "/keys", "items": "$", "id": "$.id", "name": "$.name"},
			"test":   map[string]any{"url": url + "/test", "auth": map[string]any{"type": "none"}, "headers": map[string]any{"X-Key": "{{value.key}}"}},
			"revoke": map[string]any{"url": url + "/keys/{{id}}"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}
