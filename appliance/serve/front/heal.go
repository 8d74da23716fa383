package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/certmagic"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config"
)

const (
	// storageLock is held by the front that uses a storage.
	storageLock = "front.lock"
	// damagedFolder of the storage has what was moved aside, the newest of it.
	damagedFolder = "damaged"
	damagedMost   = 10
	// validPoll is how often it is looked whether the internal CA's certificates
	// are valid by the clock of now.
	validPoll = time.Minute
)

// ErrRoot says that the root which clients trust is damaged or gone. It is never
// replaced without a person's word: see NewRoot.
var ErrRoot = errors.New("the internal CA's root is damaged or gone")

// healer makes a storage usable before anything reads it. What a power cut, a full
// disk or a wrong clock leaves there (a lock of nobody's, half a file, half a pair, a
// certificate of next year) is read by certmagic and Caddy as an error, at each try
// and for ever.
type healer struct {
	config Config
	now    time.Time
	moved  []string // what was done, for the journal
}

// heal mends the storage of c. From here on until release it is this process's alone.
func heal(c Config, now time.Time) (h *healer, release func(), err error) {
	unlock, err := statefile.Lock(filepath.Join(c.Storage, storageLock), "") // a full disk takes no name
	if err != nil {
		return nil, nil, fmt.Errorf("storage %q is another front's: %w", c.Storage, err)
	}
	h = &healer{config: c, now: now}
	// A lock in there is of a process that is gone.
	if err := os.RemoveAll(h.path("locks")); err != nil {
		unlock()
		return nil, nil, err
	}
	for _, mend := range []func() error{h.authority, h.certificates, h.accounts, h.orders} {
		if err := mend(); err != nil {
			unlock()
			return nil, nil, fmt.Errorf("front storage: %w", err)
		}
	}
	return h, unlock, nil
}

func (h *healer) path(key string) string {
	return filepath.Join(h.config.Storage, filepath.FromSlash(key))
}

// aside moves a file or folder of the storage, if it is there, to where nothing reads
// it and a person may look.
func (h *healer) aside(key, why string) error {
	from, dir := h.path(key), h.path(damagedFolder)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	old, err := os.ReadDir(dir) // by name, and so by time
	if err != nil {
		return err
	}
	for len(old) >= damagedMost {
		if err := os.RemoveAll(filepath.Join(dir, old[0].Name())); err != nil {
			return err
		}
		old = old[1:]
	}
	to := filepath.Join(dir, h.now.UTC().Format("20060102T150405.000000000Z")+"-"+strings.ReplaceAll(key, "/", "_"))
	if err := os.Rename(from, to); err != nil {
		return err
	}
	h.moved = append(h.moved, fmt.Sprintf("%s %s: moved to %s", from, why, to))
	return errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncDir(filepath.Dir(from)))
}

// The internal CA's files in the storage, without .crt and .key.
const (
	authorityKey = "pki/authorities/" + caddypki.DefaultCAID
	rootKey      = authorityKey + "/root"
	interKey     = authorityKey + "/intermediate"
)

// readPair gives the pair that is in key.crt and key.key, and whether both are there
// and fit.
func (h *healer) readPair(key string) (*tls.Certificate, bool) {
	crt, err := os.ReadFile(h.path(key + ".crt"))
	if err != nil {
		return nil, false
	}
	private, err := os.ReadFile(h.path(key + ".key"))
	if err != nil {
		return nil, false
	}
	defer clear(private)
	pair, err := tls.X509KeyPair(crt, private)
	return &pair, err == nil
}

// readRoot is the CA's certificate in file, nil where there is none.
func readRoot(file string) *x509.Certificate {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !root.IsCA {
		return nil
	}
	return root
}

func there(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// authority mends the internal CA: its root is kept whatever happens, and its
// intermediate is made anew by Caddy where it is not there.
func (h *healer) authority() error {
	if h.config.Issuer != config.TLSInternal {
		return nil
	}
	if err := h.root(); err != nil {
		return err
	}
	root := readRoot(h.path(rootKey + ".crt"))
	if root == nil { // none yet
		return h.makeRoot()
	}
	if err := mayName(root, h.config.Names); err != nil {
		return err
	}
	inter, ok := h.readPair(interKey)
	if ok && inter.Leaf.CheckSignatureFrom(root) == nil && validAt(inter.Leaf, h.now) {
		return nil
	}
	if _, ok := h.readPair(rootKey); !ok {
		return fmt.Errorf("%w: %s has no key any more, and the intermediate certificate that it has signed cannot be used", ErrRoot, h.path(rootKey+".crt"))
	}
	return errors.Join(h.aside(interKey+".crt", "is damaged or not valid now"), h.aside(interKey+".key", "is damaged or not valid now"))
}

func (h *healer) root() error {
	if _, ok := h.readPair(rootKey); ok {
		return nil
	}
	crt, key := h.path(rootKey+".crt"), h.path(rootKey+".key")
	published := h.config.RootFile
	if !there(h.path(interKey+".crt")) && (published == "" || !there(published)) {
		// Nobody has seen it: it was being made.
		return errors.Join(h.aside(rootKey+".crt", "is half a root"), h.aside(rootKey+".key", "is half a root"))
	}
	if readRoot(crt) != nil {
		return nil // its key is asked for when there is something to sign
	}
	// What clients trust is the same file.
	text, err := os.ReadFile(published)
	if err != nil || readRoot(published) == nil {
		return fmt.Errorf("%w: %s", ErrRoot, crt)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		return fmt.Errorf("%w: %s has no key: %w", ErrRoot, crt, err)
	}
	defer clear(private)
	if _, err := tls.X509KeyPair(text, private); err != nil {
		return fmt.Errorf("%w: %s and %s do not belong together", ErrRoot, published, key)
	}
	if err := h.aside(rootKey+".crt", "is damaged"); err != nil {
		return err
	}
	h.moved = append(h.moved, crt+" is made anew from "+published)
	return atomicfile.Write(crt, text, 0o600)
}

func validAt(crt *x509.Certificate, now time.Time) bool {
	return !now.Before(crt.NotBefore) && now.Before(crt.NotAfter)
}

// certificates moves aside what cannot be loaded, which is then issued anew, and what
// the internal CA has issued by another clock, or another root.
func (h *healer) certificates() error {
	folders, err := filepath.Glob(h.path("certificates/*/*"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if root := readRoot(h.path(rootKey + ".crt")); root != nil {
		roots.AddCert(root)
	}
	for _, folder := range folders {
		key, err := filepath.Rel(h.config.Storage, folder)
		if err != nil {
			return err
		}
		key = filepath.ToSlash(key)
		base := key + "/" + filepath.Base(folder)
		if files, err := os.ReadDir(folder); err == nil && len(files) == 0 {
			continue
		}
		pair, ok := h.readPair(base)
		if !ok || !isObject(h.path(base+".json")) {
			if err := h.aside(key, "is damaged or half written"); err != nil {
				return err
			}
			continue
		}
		if filepath.Base(filepath.Dir(folder)) != "local" || h.config.Issuer != config.TLSInternal {
			continue // a public CA's clock is right
		}
		if verifyChain(pair, roots, h.now) != nil {
			if err := h.aside(key, "is not valid now"); err != nil {
				return err
			}
		}
	}
	return nil
}

func verifyChain(pair *tls.Certificate, roots *x509.CertPool, now time.Time) error {
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		crt, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(crt)
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	return err
}

// isObject says whether a file holds a JSON object.
func isObject(file string) bool {
	text, err := os.ReadFile(file)
	var v map[string]json.RawMessage
	return err == nil && json.Unmarshal(text, &v) == nil
}

// accounts moves aside what is no account of ours at a CA any more: another is made.
func (h *healer) accounts() error {
	folders, err := filepath.Glob(h.path("acme/*/users/*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		whole := true
		files, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, f := range files {
			file := filepath.Join(folder, f.Name())
			switch filepath.Ext(file) {
			case ".json":
				whole = whole && isObject(file) && there(strings.TrimSuffix(file, ".json")+".key")
			case ".key":
				text, err := os.ReadFile(file)
				if err == nil {
					_, err = certmagic.PEMDecodePrivateKey(text)
				}
				clear(text)
				whole = whole && err == nil && there(strings.TrimSuffix(file, ".key")+".json")
			}
		}
		if whole {
			continue
		}
		key, err := filepath.Rel(h.config.Storage, folder)
		if err == nil {
			err = h.aside(filepath.ToSlash(key), "is damaged or half written")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orders replaces a count of orders that cannot be read by one that is full for an
// hour: nobody knows how many the CA has seen.
func (h *healer) orders() error {
	b := newBudget(h.config.Storage, func() time.Time { return h.now })
	if _, err := b.load(); !errors.Is(err, statefile.ErrCorrupt) {
		return nil // what else there is, each order says
	}
	full := &ledger{Failures: map[string][]time.Time{}}
	if h.config.ACME != nil {
		for _, directory := range []string{h.config.ACME.CA, h.config.ACME.Staging, h.config.ACME.Fallback} {
			for _, name := range h.config.Names {
				full.Failures[ledgerKey(caName(directory), []string{name})] = slices.Repeat([]time.Time{h.now}, maxFailures)
			}
		}
	}
	// In one step: between two a crash would leave none, which counts as empty.
	h.moved = append(h.moved, b.file+" is damaged: no order is placed for "+failureWindow.String())
	return statefile.Save(b.file, full, 0o600)
}

// NewRoot puts the internal CA aside, whose next start makes another: clients must be
// given its root. The front must not be running.
func NewRoot(c Config, now time.Time) (moved []string, err error) {
	if c.Issuer != config.TLSInternal {
		return nil, fmt.Errorf("issuer is %q: there is no root of its own", c.Issuer)
	}
	unlock, err := statefile.Lock(filepath.Join(c.Storage, storageLock), "")
	if err != nil {
		return nil, fmt.Errorf("storage %q: stop the front first: %w", c.Storage, err)
	}
	defer unlock()
	h := &healer{config: c, now: now}
	// The published one last: until it is gone the front refuses to make another.
	if err := errors.Join(h.aside(authorityKey, "is put aside"), h.aside("certificates/local", "is put aside")); err != nil {
		return h.moved, err
	}
	if err := os.Remove(c.RootFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h.moved, err
	}
	return h.moved, nil
}

// withoutRootKey is the internal CA where the root's key is damaged: what it has signed
// is used for as long as it is valid.
func withoutRootKey(c Config) (root, inter *caddypki.KeyPair) {
	h := &healer{config: c}
	if _, ok := h.readPair(rootKey); ok || readRoot(h.path(rootKey+".crt")) == nil {
		return nil, nil
	}
	return &caddypki.KeyPair{Certificate: h.path(rootKey + ".crt")},
		&caddypki.KeyPair{Certificate: h.path(interKey + ".crt"), PrivateKey: h.path(interKey + ".key")}
}

// errInvalid ends a front whose certificates another start makes anew.
var errInvalid = errors.New("the certificate that is served is not valid by this machine's clock; the next start makes another")

// watchValid calls end once what the internal CA has issued is not valid any more, or
// not yet: the clock has been set. certmagic looks at the end alone, and seldom.
func watchValid(ctx context.Context, tick <-chan time.Time, now func() time.Time, names []string, served func(name string) []certmagic.Certificate, end func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		for _, name := range names {
			if !anyValid(served(name), now()) {
				end(fmt.Errorf("%w: %s", errInvalid, name))
				return
			}
		}
	}
}

// anyValid says whether one of the certificates, with its chain, is valid at now.
func anyValid(certs []certmagic.Certificate, now time.Time) bool {
	for _, cert := range certs {
		valid := true
		for _, der := range cert.Certificate.Certificate {
			crt, err := x509.ParseCertificate(der)
			valid = valid && err == nil && validAt(crt, now)
		}
		if valid {
			return true
		}
	}
	return false
}

// say puts into the journal what was done.
func (h *healer) say() {
	for _, line := range h.moved {
		caddy.Log().Named("storage").Warn(line)
	}
	if root := readRoot(h.config.RootFile); root != nil && !validAt(root, h.now) {
		caddy.Log().Named("storage").Error(fmt.Sprintf("the root that clients trust is valid from %s to %s only: set the clock, or make another (strongroom front new-root)",
			root.NotBefore.UTC().Format(time.RFC3339), root.NotAfter.UTC().Format(time.RFC3339)))
	}
}
