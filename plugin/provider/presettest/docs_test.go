package presettest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

const docFile = "../../../docs/providers.md"

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every provider that the page shows can be written as it stands.
func TestDocumentedProviders(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(document(t), -1)
	if len(blocks) == 0 {
		t.Fatal("the page shows none")
	}
	for i, block := range blocks {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var doc struct {
				Type     string
				Settings map[string]any
			}
			if _, err := toml.Decode(block[1], &doc); err != nil {
				t.Fatal(err)
			}
			if _, err := factory(t, doc.Type)(provider.Config{
				Settings: doc.Settings, Credential: map[string]string{"key": "x", "client_id": "x"}, Now: time.Now,
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Every field that the providers know is on the page: they list what they
// know when they meet a name that they do not.
func TestEveryFieldIsDocumented(t *testing.T) {
	text := document(t)
	bogus := func() map[string]any { return map[string]any{"zz-unknown": 1} }
	request := func() map[string]any { return map[string]any{"zz-unknown": 1, "url": "https://example.com/"} }
	list := request()
	list["paging"] = bogus()
	create := request()
	create["values"] = map[string]any{"key": "$.k"}
	for kind, settings := range map[string]map[string]any{
		"http": {"zz-unknown": 1, "create": create, "list": list, "test": request(), "last_used": request(), "revoke": request(),
			"auth": map[string]any{"type": "oauth2", "zz-unknown": 1}, "key_name": bogus(), "refusals": []any{bogus()}, "parameters": map[string]any{"p": bogus()}},
		"manual":  bogus(),
		"aws_iam": bogus(),
	} {
		_, err := factory(t, kind)(provider.Config{Settings: settings, Now: time.Now})
		if err == nil {
			t.Fatal("unknown fields are accepted")
		}
		lists := regexp.MustCompile(`zz-unknown: is not known here; known are (.*)`).FindAllStringSubmatch(err.Error(), -1)
		if want := map[string]int{"http": 11, "manual": 1, "aws_iam": 1}[kind]; len(lists) != want {
			t.Fatalf("%s: %d lists of known fields, want %d: %v", kind, len(lists), want, err)
		}
		for _, known := range lists {
			for field := range strings.SplitSeq(known[1], ", ") {
				if !regexp.MustCompile("`(settings\\.|paging\\.)?" + regexp.QuoteMeta(field) + "[`.= ]").MatchString(text) {
					t.Errorf("%s: the page does not name %q", kind, field)
				}
			}
		}
	}
}

// The table of presets says what the files say.
func TestDocumentedPresets(t *testing.T) {
	text := document(t)
	for name, p := range presets() {
		i := strings.Index(text, "`"+name+"`")
		if i < 0 {
			t.Errorf("the page does not name the preset %s", name)
			continue
		}
		line, _, _ := strings.Cut(text[i:], "\n")
		var fields []string
		for field := range p.cred {
			fields = append(fields, field)
		}
		_, settings := load(t, name)
		if declared, ok := settings["parameters"].(map[string]any); ok {
			for field := range declared {
				fields = append(fields, field)
			}
		}
		slices.Sort(fields)
		for _, field := range fields {
			if !strings.Contains(line, "`"+field+"`") {
				t.Errorf("%s: its line does not name %q: %s", name, field, line)
			}
		}
		if limit := p.caps.MaxKeys; limit > 0 && !strings.Contains(line, fmt.Sprint(limit)) {
			t.Errorf("%s: its line does not name the limit %d", name, limit)
		}
	}
}

// Whatever is done to a preset's text, the provider is refused or works.
func FuzzPreset(f *testing.F) {
	names, err := os.ReadDir(presetDir)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(presetDir + "/" + name.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		var doc struct {
			Type     string
			Settings map[string]any
		}
		if _, err := toml.Decode(text, &doc); err != nil {
			return
		}
		if !slices.Contains([]string{"http", "manual", "aws_iam"}, doc.Type) {
			return
		}
		p, err := factory(t, doc.Type)(provider.Config{
			Settings: doc.Settings, Now: time.Now, Credential: map[string]string{"key": "canary-1", "access_key_id": "canary-2"},
		})
		if err != nil {
			if strings.Contains(err.Error(), "canary-") {
				t.Fatalf("the credential is shown: %v", err)
			}
			return
		}
		if err := p.ValidateParameters(map[string]any{"zz-unknown": conformance.Quote("x")}); err == nil {
			t.Fatal("an unknown parameter is accepted")
		}
	})
}
