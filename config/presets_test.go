package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// Every file is in the program, and its JSON says what the file does.
func TestPresets(t *testing.T) {
	files, err := filepath.Glob("providers/*")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	presets, err := Presets()
	if err != nil || len(presets) != len(files) {
		t.Fatalf("%d presets of %d files, %v", len(presets), len(files), err)
	}
	for i, p := range presets {
		if want := strings.TrimSuffix(filepath.Base(files[i]), ".toml"); p.Name != want || p.Title == "" || p.Type == "" {
			t.Errorf("%s: %+v", want, p)
		}
		text, err := os.ReadFile(files[i])
		if err != nil || string(text) != string(p.TOML) {
			t.Errorf("%s: another text, %v", p.Name, err)
		}
		asJSON, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if err := json.Unmarshal(asJSON, &got); err != nil {
			t.Fatal(err)
		}
		if _, err := toml.Decode(string(text), &want); err != nil {
			t.Fatal(err)
		}
		// Numbers by way of JSON on both sides.
		again, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		want = nil
		if err := json.Unmarshal(again, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s", p.Name, asJSON)
		}
		if _, there := got["credential"]; there {
			t.Errorf("%s holds a credential", p.Name)
		}
	}
}

// Who writes one of his own is told each slip with its line, and what is known there.
func TestParsePreset(t *testing.T) {
	const canary = "PLANTED-canary"
	for _, tt := range []struct{ name, text, says string }{
		{"no TOML", "type = \n", "acme.toml:1: "},
		{"empty", "", "acme.toml: type: is missing"},
		{"no type", "[settings]\n", "acme.toml: type: is missing"},
		{"an empty type", "\ntype = \"\"\n", "acme.toml:2: type: is missing"},
		{"an unknown key", "type = \"http\"\nsetings = {}\n", "acme.toml:2: setings: unknown key; known here: settings, type, max_rotations_per_minute"},
		{"one in another case", "Type = \"http\"\n", "acme.toml:1: Type: unknown key; known here: type"},
		{"a setting beside its table", "type = \"http\"\nurl = \"x\"\n", "acme.toml:2: url: unknown key"},
		{"another type of value", "type = 7\n", "acme.toml:1: type: a text in quotes is wanted"},
		{"settings as a list", "type = \"http\"\nsettings = []\n", "acme.toml:2: settings: a table is wanted"},
		{"a rate as a text", "type = \"http\"\nmax_rotations_per_minute = \"3\"\n", "acme.toml:2: max_rotations_per_minute: a whole number"},
		{"a credential", "type = \"http\"\n[credential]\nkey = \"" + canary + "\"\n", "acme.toml:2: credential: unknown key"},
		{"a credential in one line", "type = \"http\"\ncredential = \"" + canary + "\"\n", "acme.toml:2: credential: unknown key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParsePreset("acme.toml", []byte(tt.text))
			var faults Faults
			if !errors.As(err, &faults) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), canary) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	p, err := ParsePreset("/home/x/acme.toml", []byte("type = \"http\"\nmax_rotations_per_minute = 0\n[settings.variables]\nurl = \"https://a&b\"\n"))
	if err != nil || p.Name != "acme" || p.Type != "http" || p.Title != "" {
		t.Fatalf("%+v, %v", p, err)
	}
	text, err := p.JSON()
	if want := "{\n  \"type\": \"http\",\n  \"settings\": {\n    \"variables\": {\n      \"url\": \"https://a&b\"\n    }\n  },\n  \"max_rotations_per_minute\": 0\n}\n"; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}
