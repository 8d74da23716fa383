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

// maxTotal is what the kernel gives arguments and environment together where the
// stack has its usual limit of 8 MiB, in bytes: a quarter of that.
const maxTotal = 2 << 20

// TooMuch is how many bytes the pairs take in an environment, each with its pointer,
// where a program can usually not be started with that much; else 0.
func TooMuch(pairs []Pair) int {
	total := 0
	for _, p := range pairs {
		total += len(p.Name) + len("=") + len(p.Value) + 1 + 8
	}
	if total <= maxTotal {
		return 0
	}
	return total
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

// steeringPrefixes and steeringSuffixes are families of such names.
var (
	steeringPrefixes = strings.Fields(`LD_ DYLD_ BASH_FUNC_ GIT_CONFIG GLIBC_TUNABLES CORECLR_ COMPlus_ COR_PROFILER COR_ENABLE_PROFILING LUA_PATH LUA_CPATH LUA_INIT PERL5 TS_NODE_ TF_CLI_`)
	steeringSuffixes = strings.Fields(`JAVA_OPTS JAVA_OPTIONS JVM_OPTS JVM_ARGS`)
)

// steeringNames by what reads them. Sources: ld.so(8), environ(7), bash(1), less(1), git(1)
// and the manuals of the others.
var steeringNames = strings.Fields(`
PATH HOME SHELL PWD OLDPWD TMPDIR TMP TEMP IFS ENV BASH_ENV BASHOPTS SHELLOPTS BASH_LOADABLES_PATH BASH_XTRACEFD PS0 PS1 PS2 PS4 PROMPT_COMMAND CDPATH GLOBIGNORE FPATH ZDOTDIR POSIXLY_CORRECT
INPUTRC HISTFILE XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_HOME XDG_DATA_DIRS
GCONV_PATH LOCPATH MUSL_LOCPATH LOCALE_ARCHIVE NLSPATH TZDIR HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF NIS_PATH GETCONF_DIR MALLOC_TRACE GMON_OUT_PREFIX TERMINFO TERMINFO_DIRS TERMCAP
LIBPATH SHLIB_PATH OPENSSL_CONF OPENSSL_CONF_INCLUDE OPENSSL_ENGINES OPENSSL_MODULES KRB5_CONFIG SASL_PATH SASL_CONF_PATH ODBCINI ODBCSYSINI ODBCINSTINI LIBMYSQL_PLUGINS LIBMYSQL_PLUGIN_DIR PGSYSCONFDIR
GTK_MODULES GTK_PATH GIO_MODULE_DIR GIO_EXTRA_MODULES GDK_PIXBUF_MODULE_FILE QT_PLUGIN_PATH QT_QPA_PLATFORM_PLUGIN_PATH QML_IMPORT_PATH QML2_IMPORT_PATH GST_PLUGIN_PATH
DBUS_SESSION_BUS_ADDRESS DBUS_SYSTEM_BUS_ADDRESS SSH_SK_PROVIDER
PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONEXECUTABLE PYTHONUSERBASE PYTHONINSPECT PYTHONBREAKPOINT PYTHONWARNINGS PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONSAFEPATH PIP_CONFIG_FILE
NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE ELECTRON_RUN_AS_NODE BUN_OPTIONS DENO_DIR YARN_YARN_PATH YARN_RC_FILENAME
PERLLIB PERLIO_DEBUG PERL_MM_OPT PERL_MB_OPT RUBYOPT RUBYLIB RUBYPATH RUBYSHELL GEM_HOME GEM_PATH GEMRC BUNDLE_GEMFILE BUNDLE_PATH PHPRC PHP_INI_SCAN_DIR
JDK_JAVAC_OPTIONS JAVA_HOME JRE_HOME JAVACMD CLASSPATH MAVEN_OPTS MAVEN_ARGS GRADLE_OPTS SBT_OPTS ANT_OPTS ANT_ARGS CATALINA_OPTS KAFKA_OPTS HADOOP_OPTS JAVA_TOOL_OPTIONS
DOTNET_STARTUP_HOOKS DOTNET_ADDITIONAL_DEPS DOTNET_SHARED_STORE DOTNET_ROOT ASPNETCORE_HOSTINGSTARTUPASSEMBLIES ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS ELIXIR_ERL_OPTIONS
R_HOME R_PROFILE R_PROFILE_USER R_ENVIRON R_ENVIRON_USER R_LIBS R_LIBS_USER R_LIBS_SITE JULIA_LOAD_PATH JULIA_DEPOT_PATH JULIA_PROJECT
TCLLIBPATH TCL_LIBRARY GUILE_LOAD_PATH GUILE_LOAD_COMPILED_PATH OCAMLRUNPARAM CAML_LD_LIBRARY_PATH GHCRTS AWKPATH AWKLIBPATH
GOFLAGS GOENV GOROOT GOTOOLCHAIN RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTFLAGS CARGO_HOME CC CXX GCC_EXEC_PREFIX COMPILER_PATH MAKEFLAGS MAKEFILES GNUMAKEFLAGS TAR_OPTIONS GREP_OPTIONS
GIT_DIR GIT_WORK_TREE GIT_SSH GIT_SSH_COMMAND GIT_SSH_VARIANT GIT_EXEC_PATH GIT_ASKPASS GIT_PAGER GIT_EDITOR GIT_SEQUENCE_EDITOR GIT_PROXY_COMMAND GIT_EXTERNAL_DIFF GIT_TEMPLATE_DIR
HGRCPATH HGEDITOR SVN_SSH SVN_EDITOR CVS_RSH RSYNC_RSH RSYNC_CONNECT_PROG SSH_ASKPASS SUDO_ASKPASS SUDO_EDITOR
PAGER MANPAGER SYSTEMD_PAGER GH_PAGER AWS_PAGER PSQL_PAGER EDITOR VISUAL FCEDIT SYSTEMD_EDITOR PSQL_EDITOR PSQLRC BROWSER LESS LESSOPEN LESSCLOSE LESSEDIT LESSKEY LESSKEYIN LESSKEY_SYSTEM LESSKEY_CONTENT
VIMINIT EXINIT ANSIBLE_CONFIG ANSIBLE_LIBRARY CLOUDSDK_PYTHON APT_CONFIG
`)

// steeringNpm are settings of npm, which takes its names in small letters too, and a
// hyphen for each "_".
// Source: https://docs.npmjs.com/cli/using-npm/config#environment-variables
var steeringNpm = strings.Fields(`node_options script_shell shell userconfig globalconfig prefix git editor viewer browser init_module node_gyp python`)

func steers(name string) bool {
	if setting, npm := strings.CutPrefix(strings.ToLower(name), "npm_config_"); npm {
		return slices.Contains(steeringNpm, strings.ReplaceAll(setting, "-", "_"))
	}
	return slices.Contains(steeringNames, name) ||
		slices.ContainsFunc(steeringPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) ||
		slices.ContainsFunc(steeringSuffixes, func(p string) bool { return strings.HasSuffix(name, p) })
}
