// Package docs holds the pages, as the installer puts them on the machine: hints name
// them, and whoever reads one there may have no network.
package docs

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed *.md
var pages embed.FS

// Names are all pages, sorted.
func Names() []string {
	entries, err := fs.ReadDir(pages, ".")
	if err != nil {
		panic(fmt.Sprintf("docs: the embedded folder can't be read: %v", err))
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Page is the text of one of Names.
func Page(name string) ([]byte, error) {
	b, err := pages.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("page %q: %w", name, err)
	}
	return b, nil
}
