package test

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/oldnames"
	"strongroom.example/appliance/cli"
	icli "strongroom.example/installer/cli"
)

// programs are both command trees, as main makes them.
func programs() []*cobra.Command {
	return []*cobra.Command{cli.New("test"), icli.New("test", "commit")}
}

// each calls do with every command of both programs.
func each(do func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		c.InheritedFlags() // from here on Flags has them
		do(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	for _, root := range programs() {
		walk(root)
	}
}

// What users wrote goes on working, until the version that the table names.
func TestOldNamesAreTaken(t *testing.T) {
	version, err := os.ReadFile("../VERSION")
	if err != nil {
		t.Fatal(err)
	}
	if v := strings.TrimSpace(string(version)); v == oldnames.Until || strings.HasPrefix(v, oldnames.Until+".") {
		t.Errorf("this is version %s: package oldnames has had its time", v)
	}
	for _, old := range oldnames.Flags() {
		found := false
		each(func(c *cobra.Command) {
			if path := c.CommandPath(); path != old.Command && !strings.HasPrefix(path, old.Command+" ") {
				return
			}
			f := c.Flags().Lookup(old.Old)
			switch {
			case f == nil, f.Name == old.Old:
				return // one verb of several, or one that has a flag of that name
			case f.Name != old.New:
				t.Errorf("%s --%s is --%s, not --%s", c.CommandPath(), old.Old, f.Name, old.New)
			case c.ParseFlags([]string{"--" + old.Old + "=" + sample(f.Value.Type())}) != nil || !c.Flags().Changed(old.New):
				t.Errorf("%s --%s is not taken", c.CommandPath(), old.Old)
			}
			found = true
		})
		if !found {
			t.Errorf("%s takes no --%s", old.Command, old.Old)
		}
	}
}

// sample is a value that a flag of this type takes.
func sample(kind string) string {
	switch kind {
	case "bool":
		return "true"
	case "duration":
		return "1m"
	case "int", "uintSlice":
		return "1"
	}
	return "x"
}
