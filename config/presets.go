package config

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
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
	// HeldTo is what it was compared with: "paper", the service's documentation;
	// "specification", the vendor's published schema or client; "live", the service.
	// HeldToDate says when, as 2026-11-29, and HeldToSource with what exactly.
	HeldTo       string `json:"held_to"`
	HeldToDate   string `json:"held_to_date"`
	HeldToSource string `json:"held_to_source"`
	// TOML is the file, with its comments.
	TOML []byte `json:"-"`

	body presetFile
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
		p, err := ParsePreset(f.Name(), text)
		if err != nil {
			return nil, fmt.Errorf("presets: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// presetFile is a preset as it is written. What is in settings the engine knows, and
// is as strict about it.
type presetFile struct {
	Type         string         `toml:"type" json:"type"`
	Settings     map[string]any `toml:"settings" json:"settings,omitempty"`
	MaxPerMinute *int           `toml:"max_rotations_per_minute" json:"max_rotations_per_minute,omitempty"`
}

// ParsePreset reads one, ours or somebody's own; its name is the file's without
// .toml, and its title the first line's comment. The error is Faults. A credential
// is refused: what is shown and kept with others holds no secret.
func ParsePreset(file string, text []byte) (Preset, error) {
	p := Preset{Name: strings.TrimSuffix(path.Base(file), ".toml"), TOML: text}
	at, faults := Decode(file, text, &p.body)
	if at != nil && p.body.Type == "" {
		faults.Check(file, at)("type", errors.New(`is missing: the provider's, such as "http"`))
	}
	p.Type = p.body.Type
	for name, to := range map[string]*string{"held_to": &p.HeldTo, "held_to_date": &p.HeldToDate, "held_to_source": &p.HeldToSource} {
		*to, _ = p.body.Settings[name].(string) // the engine is strict about them
	}
	if first, _, _ := strings.Cut(string(text), "\n"); strings.HasPrefix(first, "#") {
		p.Title = strings.TrimSpace(strings.TrimPrefix(first, "#"))
	}
	return p, faults.Err()
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
