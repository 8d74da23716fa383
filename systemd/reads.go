package systemd

import (
	"path"
	"slices"
	"strings"

	"strongroom.example/config/machine"
)

// Daemons are the services that stay up, in the order of their start.
func Daemons() []string {
	out := []string{machine.UnitKMS, machine.UnitVault, machine.UnitFront}
	for _, name := range Names() {
		text, err := Unit(name)
		if err != nil || path.Ext(name) != ".service" || slices.Contains(out, name) || strings.Contains(string(text), "\nType=oneshot\n") {
			continue
		}
		if !strings.Contains(name, "@.") {
			out = append(out, name)
		}
	}
	return out
}

// Reads are the files that a unit reads when it starts, out of its text and those of
// its drop-ins: its programs, what is named in its command line or environment of the
// appliance's configuration, and its credentials. Each stands there once.
func Reads(texts ...[]byte) []string {
	var files []string
	add := func(p string) {
		if strings.HasPrefix(p, "/") && !slices.Contains(files, p) {
			files = append(files, p)
		}
	}
	for _, text := range texts {
		for line := range strings.Lines(string(text)) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			if !ok || strings.HasPrefix(key, "#") {
				continue
			}
			switch key {
			case "ExecStart":
				for i, word := range strings.Fields(value) {
					if i == 0 {
						add(strings.TrimLeft(word, "-+!:@"))
						continue
					}
					if _, after, ok := strings.Cut(word, "="); ok {
						word = after
					}
					if strings.HasPrefix(word, machine.Etc+"/") {
						add(word)
					}
				}
			case "Environment":
				if _, p, _ := strings.Cut(value, "="); strings.HasPrefix(p, machine.Etc+"/") {
					add(p)
				}
			case "LoadCredential", "LoadCredentialEncrypted":
				if _, p, ok := strings.Cut(value, ":"); ok {
					add(strings.ReplaceAll(p, "%%", "%"))
				}
			}
		}
	}
	return files
}
