package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
)

// Subject is what is examined.
type Subject struct {
	Machine Machine
	Front   Front
	Vault   Vault
	// NoLogin is why Vault can't be asked; nil: it can.
	NoLogin error
	// Config is appliance.toml; NoConfig is why there is none.
	Config   config.Appliance
	NoConfig error
	Places   evidence.Places
	// DrillKey is the file with the public half of the key that signs drills.
	DrillKey string
	// Mount is where the engine for API keys is.
	Mount   string
	Version string // of this program
}

// Machine is what the doctor sees of the machine, and changes when it is told to.
type Machine interface {
	// Now is the wall clock.
	Now() time.Time
	// Hostname is the machine's name; empty where it is not known.
	Hostname() string
	// Self is the doctor's own process.
	Self() int
	ReadFile(path string) ([]byte, error) // up to 16 MiB
	// Stat doesn't follow a link at path's end.
	Stat(path string) (Info, error)
	// ReadDir gives the names in path, sorted.
	ReadDir(path string) ([]string, error)
	// Sum is the SHA-256 of a file, hex.
	Sum(path string) (string, error)
	// Run gives what a command printed. A program that isn't there is
	// fs.ErrNotExist.
	Run(ctx context.Context, args ...string) ([]byte, error)
	// Stream hands on what a command prints as it prints it, however much that
	// is, until the command or ctx ends: then the error is ctx's.
	Stream(ctx context.Context, to io.Writer, args ...string) error

	// SetMode changes the permissions of a file.
	SetMode(path string, mode fs.FileMode) error
	// SetOwner gives a file away.
	SetOwner(path string, uid, gid int) error
	// Replace writes a file anew, with the mode and owner that it has.
	Replace(path string, data []byte) error
}

// Info is what Stat finds.
type Info struct {
	Mode     fs.FileMode // permission bits
	Type     fs.FileMode // fs.ModeDir, …; 0: a file
	UID, GID int
	Size     int64 // bytes
}

// Front is the appliance as clients see it.
type Front interface {
	// Hello makes a handshake under a name. A front that speaks none of the
	// versions is errVersions.
	Hello(ctx context.Context, name string, lowest, highest uint16) (tls.ConnectionState, error)
	// Get asks for a path under a name, and gives up to 64 KiB of the answer.
	// path goes out as it is written.
	Get(ctx context.Context, name, path string) (Answer, error)
}

// Answer is an HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Vault is what the doctor asks of it.
type Vault interface {
	// Health is what Vault says of itself without a login.
	Health(ctx context.Context) (evidence.Health, error)
	// Keys is what the engine at mount knows of its keys.
	Keys(ctx context.Context, mount string) (evidence.Keys, error)
	// Read gives the data at path, nil where there is none.
	Read(ctx context.Context, path string, query map[string][]string) (map[string]any, error)
	// List gives the names at path.
	List(ctx context.Context, path string) ([]string, error)
	// Token looks a token up by its accessor; nil: it is gone.
	Token(ctx context.Context, accessor string) (map[string]any, error)
}

var errNoVault = errors.New("not logged in to Vault")

// vault says whether Vault can be asked, and notes it where not.
func (e *exam) vault(what string) bool {
	if e.NoLogin == nil {
		return true
	}
	e.notAsked(what, e.NoLogin)
	return false
}

// read gives what Vault has at a path. What does not come, or holds nothing, is
// noted, and false: nothing is no zero.
func (e *exam) read(ctx context.Context, path string, query map[string][]string) (map[string]any, bool) {
	if !e.vault("vault read " + path) {
		return nil, false
	}
	data, err := e.Vault.Read(ctx, path, query)
	if err == nil && len(data) == 0 {
		err = errNothing
	}
	if err != nil {
		e.unseen("vault read "+path, err)
		return nil, false
	}
	return data, true
}

// list gives the names that Vault has at a path; there may be none.
func (e *exam) list(ctx context.Context, path string) ([]string, bool) {
	if !e.vault("vault list " + path) {
		return nil, false
	}
	names, err := e.Vault.List(ctx, path)
	if err != nil {
		e.unseen("vault list "+path, err)
		return nil, false
	}
	return names, true
}

// domain is the public name; without one the outside can't be looked at.
func (e *exam) domain(what string) (string, bool) {
	if e.Config.Domain != "" {
		return e.Config.Domain, true
	}
	err := e.NoConfig
	if err == nil {
		err = errors.New("the configuration names no domain")
	}
	e.notAsked(what, err)
	return "", false
}

// inContainer says that the kernel is another's: swap, sysctls and the clock
// are not this machine's to set. Where it can't be read, that is noted.
func (e *exam) inContainer() string {
	const p = "/run/systemd/container"
	b, err := e.Machine.ReadFile(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.unseen(p, err)
	}
	return strings.TrimSpace(string(b))
}
