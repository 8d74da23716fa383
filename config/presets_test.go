package config

import (
	"encoding/json"
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
