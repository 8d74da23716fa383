package appenv

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
)

// hardValues are what readers differ on.
var hardValues = map[string]string{
	"EMPTY": "", "PLAIN": "abc123", "BLANKS": " a b ", "TAB": "a\tb", "HASH": "abc # prod", "HASH2": "pa#ss", "SINGLE": "it's", "DOUBLE": `say "x"`, "BOTH": `it's "x"`,
	"BACKSLASH": `pa\ss`, "ENDS": `pass\`, "DOLLAR": "a$B${C}$$", "TICK": "a`b`", "TILDE": "~/x", "NEWLINE": "l1\nl2", "RETURN": "a\r\nb", "WRITTEN": `l1\nl2`, "JSON": `{"a": "b\n"}`,
	"SEMICOLON": "a;b", "EQUALS": "a=b", "BANG": "a!b", "UNICODE": "pässwörd\u00a0x", "QUOTED": `"abc"`, "QUOTED2": "'abc'", "ALL": "'\"`\\ $x #\t", "PEM": "-----BEGIN X-----\nab+/=\n-----END X-----\n",
}

// What each format cannot hold; all else reads back by each of its readers.
func TestRender(t *testing.T) {
	cannot := map[string][]string{
		"docker": {"NEWLINE", "PEM", "RETURN"},
		"node":   {"ALL", "RETURN"},
	}
	for _, f := range formats {
		if f.name == "json" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			for name, value := range hardValues {
				data, err := Render([]Pair{{name, value}, {"Z", "z"}}, f.name)
				var refused *CannotHoldError
				if errors.As(err, &refused) {
					if !strings.Contains(err.Error(), name+" (") || strings.Contains(err.Error(), value) && len(value) > 2 {
						t.Errorf("%s: said %q", name, err)
					}
					if f.name != "dotenv" && !slices.Contains(cannot[f.name], name) {
						t.Errorf("%s is refused: %v", name, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(cannot[f.name], name) {
					t.Errorf("%s is not refused: %q", name, data)
				}
				for _, d := range f.readers {
					file, err := dotenv.Parse(data, d)
					if err != nil {
						t.Fatalf("%s for %v: %v", name, d, err)
					}
					vars, err := file.Resolve(nil)
					if err != nil || len(vars) != 2 || vars[0].Value != value || vars[1].Value != "z" {
						t.Errorf("%s for %v: %q, %v", name, d, data, err)
					}
				}
			}
		})
	}
}

func TestRenderRefusesByName(t *testing.T) {
	pairs := []Pair{{"A.B", "x"}, {"CERT", "secret-1\nsecret-2"}, {"LONG", strings.Repeat("s", 70<<10)}, {"UID", "7"}}
	for format, want := range map[string][]string{
		"docker":  {"CERT (an end of line in it)", "LONG (71680 bytes in one line)"},
		"systemd": {"A.B (its name)"},
		"shell":   {"A.B (its name)", "UID (its name)"},
		"compose": nil, "json": nil,
	} {
		_, err := Render(pairs, format)
		var refused *CannotHoldError
		switch {
		case want == nil && err != nil:
			t.Errorf("%s: %v", format, err)
		case want != nil && (!errors.As(err, &refused) || !slices.Equal(refused.Names, want)):
			t.Errorf("%s: %v, want %v", format, err, want)
		case want != nil && strings.Contains(err.Error(), "secret-"):
			t.Errorf("%s quotes a value: %v", format, err)
		}
	}
	if _, err := Render(nil, "ruby"); err == nil {
		t.Error("a format that is none is taken")
	}
	data, err := Render(pairs, "json")
	var m map[string]string
	if err != nil || json.Unmarshal(data, &m) != nil || m["CERT"] != pairs[1].Value {
		t.Errorf("json: %v %v", err, m)
	}
}

func TestSteering(t *testing.T) {
	steering := []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "NODE_OPTIONS", "NODE_PATH", "BASH_ENV", "ENV", "IFS", "PERL5OPT", "PERL5LIB",
		"RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GCONV_PATH", "PROMPT_COMMAND", "SHELLOPTS", "PS4", "EDITOR", "PAGER", "DOTNET_STARTUP_HOOKS", "HOME"}
	plain := []string{"DATABASE_URL", "PGPASSWORD", "PYTHONANYWHERE_API_TOKEN", "NODE_AUTH_TOKEN", "LDAP_PASSWORD", "MY_PATH", "PATH_PREFIX", "ENVIRONMENT", "GIT_TOKEN", "HTTPS_PROXY", "JAVA_KEYSTORE_PASSWORD", "path", "HOMEPAGE"}
	var pairs []Pair
	for _, name := range slices.Concat(steering, plain) {
		pairs = append(pairs, Pair{name, "x"})
	}
	if got := Steering(pairs, nil); !slices.Equal(got, steering) {
		t.Errorf("got %v", got)
	}
	if got := Steering(pairs, steering[2:]); !slices.Equal(got, steering[:2]) {
		t.Errorf("with some allowed: %v", got)
	}
}

func TestTooLarge(t *testing.T) {
	fits := MaxVariable - len("A=") - 1
	if got := TooLarge([]Pair{{"A", strings.Repeat("x", fits)}}); got != nil {
		t.Error("the largest that fits is refused")
	}
	if got := TooLarge([]Pair{{"A", strings.Repeat("x", fits+1)}, {"B", "x"}}); len(got) != 1 || got[0].Name != "A" {
		t.Errorf("got %v", got)
	}
}
