package appenv

import (
	"encoding/json"
	"errors"
	"fmt"
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
	for _, name := range moreSteering {
		if Steering([]Pair{{name, "x"}}, nil) == nil {
			t.Errorf("%s is handed on", name)
		}
	}
	for _, name := range secretsBesideThem {
		if Steering([]Pair{{name, "x"}}, nil) != nil {
			t.Errorf("%s is refused", name)
		}
	}
}

// moreSteering by what reads them: the loader and libraries, shells, pagers and
// editors, version control, languages, build tools, npm in both cases.
var moreSteering = strings.Fields(`
LD_DEBUG_OUTPUT LD_PROFILE_OUTPUT LD_BIND_NOW LIBPATH SHLIB_PATH GLIBC_TUNABLES TZDIR MALLOC_TRACE GMON_OUT_PREFIX MUSL_LOCPATH LOCALE_ARCHIVE
BASH_LOADABLES_PATH BASH_XTRACEFD PS0 PS1 PS2 INPUTRC FCEDIT HISTFILE OLDPWD XDG_CONFIG_HOME XDG_DATA_DIRS
SYSTEMD_PAGER SYSTEMD_EDITOR LESS LESSKEY LESSKEY_CONTENT LESSEDIT AWS_PAGER GH_PAGER PSQL_PAGER PSQL_EDITOR PSQLRC VIMINIT EXINIT SUDO_EDITOR
GIT_DIR GIT_WORK_TREE GIT_SSH_VARIANT GIT_CONFIG_PARAMETERS GIT_CONFIG HGRCPATH HGEDITOR SVN_SSH CVS_RSH RSYNC_RSH SSH_SK_PROVIDER
PERL5SHELL PERL5DB_THREADED PERL_MM_OPT RUBYPATH BUNDLE_PATH GEMRC JDK_JAVAC_OPTIONS IBM_JAVA_OPTIONS OPENJ9_JAVA_OPTIONS ES_JAVA_OPTS KAFKA_JVM_OPTS JAVA_HOME JAVACMD ANT_OPTS
COMPlus_ReadyToRun ASPNETCORE_HOSTINGSTARTUPASSEMBLIES DOTNET_ROOT ERL_LIBS R_HOME R_LIBS_SITE JULIA_PROJECT GOTOOLCHAIN GOROOT RUSTC RUSTC_WORKSPACE_WRAPPER CARGO_HOME
MAKEFILES GNUMAKEFLAGS CC CXX GCC_EXEC_PREFIX COMPILER_PATH TCLLIBPATH GUILE_LOAD_PATH OCAMLRUNPARAM AWKPATH AWKLIBPATH TAR_OPTIONS GREP_OPTIONS DENO_DIR BUN_OPTIONS TS_NODE_COMPILER
GTK_MODULES GTK_PATH GIO_EXTRA_MODULES GDK_PIXBUF_MODULE_FILE QT_PLUGIN_PATH QML2_IMPORT_PATH GST_PLUGIN_PATH DBUS_SESSION_BUS_ADDRESS SASL_PATH ODBCINI ODBCINSTINI LIBMYSQL_PLUGINS KRB5_CONFIG
PIP_CONFIG_FILE YARN_YARN_PATH ANSIBLE_CONFIG ANSIBLE_LIBRARY TF_CLI_CONFIG_FILE TF_CLI_ARGS TF_CLI_ARGS_plan CLOUDSDK_PYTHON APT_CONFIG
npm_config_node_options npm_config_script_shell NPM_CONFIG_SCRIPT_SHELL npm_config_script-shell NPM_CONFIG_USERCONFIG npm_config_git
`)

// secretsBesideThem are names that secrets have, of the same programs.
var secretsBesideThem = strings.Fields(`
NPM_CONFIG__AUTH npm_config__authToken NPM_TOKEN YARN_NPM_AUTH_TOKEN PIP_INDEX_URL CARGO_REGISTRY_TOKEN COMPOSER_AUTH ANSIBLE_VAULT_PASSWORD TF_VAR_db_password TF_TOKEN_app_terraform_io
GOOGLE_APPLICATION_CREDENTIALS AWS_SECRET_ACCESS_KEY KUBECONFIG DOCKER_AUTH_CONFIG CLOUDSDK_AUTH_ACCESS_TOKEN PERL_API_KEY RUBYGEMS_API_KEY R_API_KEY GOOGLE_API_KEY GITHUB_TOKEN GIT_PASSWORD
LESSON_API_KEY LDAP_BIND_PASSWORD JAVA_API_TOKEN DOTNET_API_KEY QT_API_KEY BASH_API_TOKEN CCAVENUE_KEY PSQL_PASSWORD MYSQL_PASSWORD KRB5_PASSWORD SSH_PRIVATE_KEY XDG_SECRET ODBC_PASSWORD DBUS_TOKEN
`)

// Readers that start a program with what they read can hold no more than an
// environment does.
func TestRenderForEnvironments(t *testing.T) {
	fits := MaxVariable - len("A=") - 1
	for _, f := range formats {
		starts := slices.ContainsFunc(f.readers, func(d dotenv.Dialect) bool { return d == dotenv.Systemd || d == dotenv.Compose || d == dotenv.Docker })
		for n, want := range map[int]bool{fits: f.name == "docker", fits + 1: starts} {
			_, err := Render([]Pair{{"A", strings.Repeat("x", n)}}, f.name)
			var refused *CannotHoldError
			if got := errors.As(err, &refused); got != want || got && !strings.Contains(err.Error(), "A (1310") {
				t.Errorf("%s, %d bytes: %v", f.name, n, err)
			}
		}
	}
}

func TestTooMuch(t *testing.T) {
	var pairs []Pair
	for i := range 20 {
		pairs = append(pairs, Pair{fmt.Sprintf("A_%02d", i), strings.Repeat("x", 120_000)})
	}
	if n := TooMuch(pairs); n != 20*(len("A_00=")+120_000+1+8) {
		t.Errorf("%d bytes", n)
	}
	if n := TooMuch(pairs[:10]); n != 0 {
		t.Errorf("%d bytes are too much", n)
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
