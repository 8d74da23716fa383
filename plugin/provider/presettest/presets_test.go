package presettest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/awsiam"
	"strongroom.example/plugin/provider/conformance"
	"strongroom.example/plugin/provider/httpprov"
	"strongroom.example/plugin/provider/manual"
)

const presetDir = "../../../config/providers"

// load reads a preset as an operator would: the TOML as JSON.
func load(t *testing.T, name string) (kind string, settings map[string]any) {
	t.Helper()
	var doc struct {
		Type     string         `toml:"type"`
		Settings map[string]any `toml:"settings"`
	}
	meta, err := toml.DecodeFile(filepath.Join(presetDir, name+".toml"), &doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range meta.Undecoded() {
		if len(key) == 1 {
			t.Errorf("%s: the field %s is not one of type and settings", name, key)
		}
	}
	text, err := json.Marshal(doc.Settings)
	if err != nil {
		t.Fatal(err)
	}
	settings = map[string]any{}
	if err := json.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	return doc.Type, settings
}

func factory(t *testing.T, kind string) provider.Factory {
	t.Helper()
	switch kind {
	case "http":
		return httpprov.New
	case "manual":
		return manual.New
	case "aws_iam":
		return awsiam.New
	}
	t.Fatalf("no such type: %q", kind)
	return nil
}

// point sends a preset's requests to a test server.
func point(settings map[string]any, url, ca string) {
	settings["allow_addresses"] = []any{"127.0.0.1/32"}
	settings["ca_certificate"] = ca
	variables := settings["variables"].(map[string]any)
	variables["url"] = url
	if _, own := variables["token_url"]; own {
		variables["token_url"] = url + "/oauth/token"
	}
}

// build builds a preset's provider for a test server.
func build(t *testing.T, preset, url, ca string, credential map[string]string) provider.Provider {
	t.Helper()
	kind, settings := load(t, preset)
	point(settings, url, ca)
	p, err := factory(t, kind)(provider.Config{Name: preset, Settings: settings, Credential: credential, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A preset is what a test knows of one file.
type preset struct {
	caps   provider.Capabilities
	host   string // where its requests go, unless it is this installation's own
	params map[string]any
	bad    map[string]map[string]any
	cred   map[string]string
}

func TestPresets(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			serve, ok := Services()[name]
			if !ok {
				t.Fatal("Services has no server that plays it")
			}
			conformance.Run(t, conformance.Subject{
				Params: p.params, BadParams: p.bad,
				New: func(t *testing.T) (provider.Provider, conformance.Service) {
					s := serve()
					url, ca := s.Start(t)
					return build(t, name, url, ca, p.cred), s.Fake
				},
			})
		})
	}
}

// Each preset is as the table says when nothing is changed but what an
// operator must fill in, and its requests go where its comment says.
func TestAsShipped(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			kind, settings := load(t, name)
			if p.host == "" {
				if _, err := factory(t, kind)(provider.Config{Settings: settings, Credential: p.cred, Now: time.Now}); err == nil ||
					!strings.Contains(err.Error(), "settings.variables.url: is empty") {
					t.Fatalf("unfilled: %v", err)
				}
				variables := settings["variables"].(map[string]any)
				for name, v := range variables {
					if v == "" {
						variables[name] = "https://own.example.com"
					}
				}
				if _, ok := variables["token_url"]; ok {
					variables["token_url"] = "https://own.example.com/token"
				}
				p.host = "https://own.example.com/"
			}
			made, err := factory(t, kind)(provider.Config{Settings: settings, Credential: p.cred, Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			if got := made.Capabilities(); got != p.caps {
				t.Errorf("capabilities\n%+v, want\n%+v", got, p.caps)
			}
			requests, err := made.(provider.DryRunner).DryRun(p.params)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range requests {
				if !strings.HasPrefix(r.URL, p.host) {
					t.Errorf("%s goes to %s, want %s", r.Op, r.URL, p.host)
				}
				text, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				for _, secret := range p.cred {
					if strings.Contains(string(text), secret) {
						t.Errorf("the dry run shows a credential: %s", text)
					}
				}
			}
			text, err := os.ReadFile(filepath.Join(presetDir, name+".toml"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), "# credential: ") || !strings.Contains(string(text), "documentation = \"https://") && kind != "aws_iam" {
				t.Error("the file does not say what credential it needs, or where the documentation is")
			}
			for _, field := range []string{"held_to", "held_to_date", "held_to_source"} {
				if v, _ := settings[field].(string); v == "" {
					t.Errorf("the file does not say %s", field)
				}
			}
		})
	}
}

// Every file is tested, and nothing else lies there.
func TestEveryFileIsTested(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(presetDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	known := presets()
	for _, file := range files {
		name, ok := strings.CutSuffix(filepath.Base(file), ".toml")
		if _, tested := known[name]; !ok || !tested && name != "aws-iam" && name != "hetzner-s3" {
			t.Errorf("%s is no preset that is tested here", file)
		}
	}
	if len(files) != len(known)+2 {
		t.Errorf("%d files for %d presets", len(files), len(known)+2)
	}
}

// Hetzner's S3 keys can only be reminded of: S3 signs requests.
func TestHetznerS3(t *testing.T) {
	kind, settings := load(t, "hetzner-s3")
	if kind != "manual" {
		t.Fatalf("type %q", kind)
	}
	p, err := manual.New(provider.Config{Settings: settings, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Capabilities(); got != (provider.Capabilities{Overlap: true}) {
		t.Fatalf("capabilities %+v", got)
	}
	if p.(*manual.Provider).ConsoleURL == "" {
		t.Fatal("nobody is told where the next one is made")
	}
}

// AWS's keys have a provider of their own, which is tested beside it.
func TestAWSIAM(t *testing.T) {
	kind, settings := load(t, "aws-iam")
	if kind != "aws_iam" {
		t.Fatalf("type %q", kind)
	}
	p, err := awsiam.New(provider.Config{
		Settings: settings, Now: time.Now, Credential: map[string]string{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "key": "canary"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Capabilities(); got.MaxKeys != 2 || got.Named || !got.List || !got.Overlap {
		t.Fatalf("capabilities %+v", got)
	}
	if err := p.ValidateParameters(map[string]any{"user_name": "pipeline"}); err != nil {
		t.Fatal(err)
	}
}
