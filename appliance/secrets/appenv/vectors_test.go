package appenv

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

// vectors is what a mapping file means and what a value is as text. The Python
// client's tests run the same table.
type vectors struct {
	Mappings []struct {
		It        string
		TOML      string
		Variables map[string][4]*string // engine, mount, path, field
		Faults    []string
	}
	Values []struct {
		It      string
		Secret  *string // the fields in KV, as Vault answers them
		Key     *string // the answer of the apikeys engine
		Field   string
		Text    string
		Refused bool
	}
}

func readVectors(t *testing.T) vectors {
	t.Helper()
	data, err := os.ReadFile("../../../python/tests/env_vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Mappings) < 30 || len(v.Values) < 30 {
		t.Fatalf("the table has %d mappings and %d values", len(v.Mappings), len(v.Values))
	}
	return v
}

func TestVectorsOfMappings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.toml")
	for _, tt := range readVectors(t).Mappings {
		t.Run(tt.It, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.TOML), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := ReadMapping(file)
			if tt.Variables == nil {
				if err == nil {
					t.Fatal("it is taken")
				}
				for _, want := range tt.Faults {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in %q", want, err)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][4]*string{}
			for name, e := range m.Variables {
				field := &e.Field
				if e.Field == "" {
					field = nil
				}
				got[name] = [4]*string{&e.Engine, &e.Mount, &e.Path, field}
			}
			if !reflect.DeepEqual(got, tt.Variables) {
				t.Errorf("got %v, want %v", m.Variables, tt.Variables)
			}
		})
	}
}

func TestVectorsOfValues(t *testing.T) {
	for _, tt := range readVectors(t).Values {
		t.Run(tt.It, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v1/secret/data/x" && tt.Secret != nil:
					w.Write([]byte(`{"data": {"data": ` + *tt.Secret + `, "metadata": {"version": 1}}}`))
				case r.URL.Path == "/v1/apikeys/creds/x" && tt.Key != nil:
					w.Write([]byte(`{"data": {"version": 1, "cache_ttl": 60, "etag": "\"1\"", ` + (*tt.Key)[1:] + `}`))
				default:
					w.WriteHeader(http.StatusNotFound)
					w.Write([]byte(`{"errors": []}`))
				}
			}))
			defer server.Close()
			c, err := vaultapi.New(vaultapi.Options{Address: server.URL, Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			engine := "kv"
			if tt.Key != nil || strings.Contains(tt.It, "API key") {
				engine = "apikeys"
			}
			text := "format = 1\n[variables.A]\npath = \"x\"\nengine = \"" + engine + "\"\n"
			if tt.Field != "" {
				text += "field = \"" + tt.Field + "\"\n"
			}
			file := filepath.Join(t.TempDir(), "m.toml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := ReadMapping(file)
			if err != nil {
				t.Fatal(err)
			}
			pairs, err := m.Load(t.Context(), c)
			if tt.Refused {
				if err == nil {
					t.Fatalf("it is %q", pairs[0].Value)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(pairs) != 1 || pairs[0].Value != tt.Text {
				t.Errorf("got %q, want %q", pairs[0].Value, tt.Text)
			}
		})
	}
}
