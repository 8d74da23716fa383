package config

import (
	"bytes"
	"fmt"

	"github.com/BurntSushi/toml"
)

// Encode gives a as a file that Parse reads back to the same.
func Encode(a Appliance) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# What this appliance was told, written by strongroom-installer. To change it,\n# edit a copy and run: strongroom-installer install --config COPY\n\n")
	enc := toml.NewEncoder(&b)
	enc.Indent = ""
	if err := enc.Encode(a); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}
