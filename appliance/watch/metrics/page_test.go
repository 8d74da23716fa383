package metrics

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// names are all metrics of this package, with their prefix.
func names() []string {
	var out []string
	for _, m := range table {
		out = append(out, prefix+m.name)
	}
	return out
}

// Every metric is in the page on monitoring, and every one that it names is there.
func TestMonitoringPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bstrongroom_[a-z_]+[a-z]\b`).FindAllString(string(page), -1)
	for _, n := range names() {
		if !slices.Contains(named, n) {
			t.Errorf("%s is not in the page", n)
		}
	}
	for _, n := range named {
		if !slices.Contains(names(), n) && n != "strongroom_front" && n != "strongroom_doctor" {
			t.Errorf("%s is in the page and nowhere else", n)
		}
	}
}
