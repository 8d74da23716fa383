package argument

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
)

// upper is a flag that does something with what it is given.
type upper struct{ to *string }

func (u upper) String() string     { return "" }
func (u upper) Type() string       { return "string" }
func (u upper) Set(s string) error { *u.to = strings.ToUpper(s); return nil }

func TestArgument(t *testing.T) {
	for _, tt := range []struct {
		name    string
		several bool
		args    []string
		want    []string
		fails   string // in the error
	}{
		{"none", false, nil, []string{"/default"}, ""},
		{"one", false, []string{"a.toml"}, []string{"a.toml"}, ""},
		{"by the flag", false, []string{"--file", "a.toml"}, []string{"a.toml"}, ""},
		{"both", false, []string{"--file", "a.toml", "b.toml"}, nil, `--file, and "b.toml" as the argument`},
		{"both, the same", false, []string{"--file", "/default", "/default"}, nil, "as the argument"},
		{"two", false, []string{"a", "b"}, nil, "accepts at most 1 arg"},
		{"empty", false, []string{""}, nil, "names nothing"},
		{"blank", false, []string{" "}, nil, "names nothing"},
		{"like a flag", false, []string{"--", "--file"}, []string{"--file"}, ""},
		{"several: none", true, nil, []string{"/default"}, ""},
		{"several: two", true, []string{"a", "b"}, []string{"a", "b"}, ""},
		{"several: by the flag", true, []string{"--file", "a", "--file", "b"}, []string{"a", "b"}, ""},
		{"several: both", true, []string{"a", "--file", "b"}, nil, "as the argument"},
		{"several: one is empty", true, []string{"a", ""}, nil, "names nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, several := "/default", []string{"/default"}
			ran := 0
			c := &cobra.Command{Use: "look", SilenceErrors: true, SilenceUsage: true, RunE: func(_ *cobra.Command, args []string) error {
				if ran++; args != nil {
					t.Errorf("the argument %q is handed on", args)
				}
				return nil
			}}
			if tt.several {
				c.Flags().StringArrayVar(&several, "file", several, "")
				Several(c, "FILE", "file", &several)
			} else {
				c.Flags().StringVar(&one, "file", one, "")
				One(c, "FILE", "file", &one)
				several = nil
			}
			c.SetArgs(append([]string{}, tt.args...))
			err := c.Execute()
			if !tt.several {
				several = []string{one}
			}
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) || ran > 0 {
					t.Errorf("%v, ran %d times", err, ran)
				}
				if known := new(fault.Error); errors.As(err, &known) && known.Code != fault.Usage {
					t.Errorf("exit code %d", known.Code)
				}
				return
			}
			if err != nil || !slices.Equal(several, tt.want) || ran != 1 {
				t.Errorf("%q, %v, ran %d times", several, err, ran)
			}
		})
	}
}

// What the flag would do with it is done with the argument, and the help shows it.
func TestArgumentByWayOfItsFlag(t *testing.T) {
	var got string
	c := &cobra.Command{Use: "look", RunE: func(*cobra.Command, []string) error { return nil }}
	c.Flags().Var(upper{&got}, "file", "")
	One(c, "FILE", "file", &got)
	c.SetOut(io.Discard)
	c.SetArgs([]string{"a"})
	if err := c.Execute(); err != nil || got != "A" || c.UseLine() != "look [FILE] [flags]" {
		t.Errorf("%q, %v, %q", got, err, c.UseLine())
	}
}
