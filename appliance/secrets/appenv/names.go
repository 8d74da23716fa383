package appenv

import (
	"slices"
	"strings"
)

// MaxVariable bounds one variable, "NAME=" and the NUL at its end included, in
// bytes: MAX_ARG_STRLEN of Linux with pages of 4 KiB.
// Source: https://man7.org/linux/man-pages/man2/execve.2.html
const MaxVariable = 128 << 10

// TooLarge are the pairs that no program can be started with, in their order.
func TooLarge(pairs []Pair) []Pair {
	var out []Pair
	for _, p := range pairs {
		if len(p.Name)+len("=")+len(p.Value)+1 > MaxVariable {
			out = append(out, p)
		}
	}
	return out
}

// Steering are those names among the pairs that change which code a program
// runs, or where it finds things, and that nobody allows. Whoever may write
// such a secret would run code as the program's user.
func Steering(pairs []Pair, allowed []string) []string {
	var out []string
	for _, p := range pairs {
		if steers(p.Name) && !slices.Contains(allowed, p.Name) {
			out = append(out, p.Name)
		}
	}
	return out
}

// steeringPrefixes are families of such names.
var steeringPrefixes = []string{"LD_", "DYLD_", "BASH_FUNC_", "GIT_CONFIG_", "GLIBC_TUNABLES", "CORECLR_", "COR_PROFILER", "COR_ENABLE_PROFILING", "LUA_PATH", "LUA_CPATH", "LUA_INIT"}

// steeringNames by what reads them: the system and shells, languages, programs
// that start others. Sources: ld.so(8), environ(7), bash(1), and the manuals of
// the languages.
var steeringNames = strings.Fields(`
PATH HOME SHELL PWD TMPDIR TMP TEMP IFS ENV BASH_ENV BASHOPTS SHELLOPTS PS4 PROMPT_COMMAND CDPATH GLOBIGNORE FPATH ZDOTDIR POSIXLY_CORRECT
GCONV_PATH LOCPATH NLSPATH HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF NIS_PATH GETCONF_DIR MALLOC_TRACE TERMINFO TERMINFO_DIRS TERMCAP
OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES
PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONEXECUTABLE PYTHONUSERBASE PYTHONINSPECT PYTHONBREAKPOINT PYTHONWARNINGS PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONSAFEPATH
NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE ELECTRON_RUN_AS_NODE
PERL5LIB PERL5OPT PERLLIB PERL5DB RUBYOPT RUBYLIB GEM_HOME GEM_PATH BUNDLE_GEMFILE PHPRC PHP_INI_SCAN_DIR
JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS JAVA_OPTS CLASSPATH MAVEN_OPTS GRADLE_OPTS SBT_OPTS CATALINA_OPTS
DOTNET_STARTUP_HOOKS DOTNET_ADDITIONAL_DEPS DOTNET_SHARED_STORE ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ELIXIR_ERL_OPTIONS
R_PROFILE R_PROFILE_USER R_ENVIRON R_ENVIRON_USER R_LIBS R_LIBS_USER JULIA_LOAD_PATH JULIA_DEPOT_PATH GOFLAGS RUSTC_WRAPPER RUSTFLAGS MAKEFLAGS
GIT_SSH GIT_SSH_COMMAND GIT_EXEC_PATH GIT_ASKPASS GIT_PAGER GIT_EDITOR GIT_SEQUENCE_EDITOR GIT_PROXY_COMMAND GIT_EXTERNAL_DIFF GIT_TEMPLATE_DIR
SSH_ASKPASS SUDO_ASKPASS PAGER MANPAGER EDITOR VISUAL BROWSER LESSOPEN LESSCLOSE
`)

func steers(name string) bool {
	return slices.Contains(steeringNames, name) || slices.ContainsFunc(steeringPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
