package config

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

//go:embed providers/*.toml
var presetFiles embed.FS

// Preset is what a provider of API keys needs to know of one service, but for the
// credential.
type Preset struct {
	Name string `json:"name"`
	Type string `json:"type"` // of the provider: "http", "aws_iam", "manual"
	// Title is the service's in a few words.
	Title string `json:"title"`
	// TOML is the file, with its comments.
	TOML []byte `json:"-"`

	body map[string]any
}

// Presets are all of them, by name.
func Presets() ([]Preset, error) {
	files, err := presetFiles.ReadDir("providers")
	if err != nil {
		return nil, fmt.Errorf("presets: %w", err)
	}
	out := make([]Preset, 0, len(files))
	for _, f := range files {
		text, err := presetFiles.ReadFile("providers/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("presets: %w", err)
		}
		p := Preset{Name: strings.TrimSuffix(f.Name(), ".toml"), TOML: text}
		if _, err := toml.Decode(string(text), &p.body); err != nil {
			return nil, fmt.Errorf("preset %q: %w", p.Name, err)
		}
		p.Type, _ = p.body["type"].(string)
		first, _, _ := strings.Cut(string(text), "\n")
		p.Title = strings.TrimSpace(strings.TrimPrefix(first, "#"))
		out = append(out, p)
	}
	return out, nil
}

// JSON is what `vault write apikeys/providers/NAME -` takes, once the credential
// is added.
func (p Preset) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(p.body); err != nil {
		return nil, fmt.Errorf("preset %q: %w", p.Name, err)
	}
	return b.Bytes(), nil
}
