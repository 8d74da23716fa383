package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/certmagic"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/authority"
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
	// duePoll is how often it is looked whether the intermediate certificate is due.
	duePoll = time.Hour
)

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
	return authority.ReadRoot(text)
}

func there(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// authority mends the internal CA: its root is kept whatever happens, and its
// intermediate is made anew where it is not there.
func (h *healer) authority() error {
	if h.config.Issuer != config.TLSInternal {
		return nil
	}
	if h.config.Authority != "" {
		if signed, err := h.elsewhere(); signed || err != nil {
			return err
		}
	}
	if err := h.root(); err != nil {
		return err
	}
	root := readRoot(h.path(rootKey + ".crt"))
	if root == nil && h.config.Authority != "" { // it was half of one
		return h.newIntermediate(context.Background())
	}
	if root == nil { // none yet
		return h.makeRoot()
	}
	if err := authority.MayName(root, h.config.Names); err != nil {
		return err
	}
	if h.hasIntermediate(root) {
		return nil
	}
	if _, ok := h.readPair(rootKey); !ok {
		return fmt.Errorf("%w: %s has no key any more, and the intermediate certificate that it has signed cannot be used", authority.ErrRoot, h.path(rootKey+".crt"))
	}
	return h.withoutIntermediate()
}

func (h *healer) withoutIntermediate() error {
	return errors.Join(h.aside(interKey+".crt", "is damaged or not valid now"), h.aside(interKey+".key", "is damaged or not valid now"))
}

// hasIntermediate says whether there is one of root that is valid now.
func (h *healer) hasIntermediate(root *x509.Certificate) bool {
	inter, ok := h.readPair(interKey)
	return ok && root != nil && inter.Leaf.CheckSignatureFrom(root) == nil && validAt(inter.Leaf, h.now)
}

// makeRoot puts one into the storage, where Caddy finds it. The certificate is the commit
// point: a key without one is half a root.
func (h *healer) makeRoot() error {
	crt, key, err := authority.NewRoot(h.config.Names, h.now)
	if err != nil {
		return err
	}
	defer clear(key)
	return h.writePair(rootKey, crt, key)
}

func (h *healer) writePair(name string, crt, key []byte) error {
	if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o700); err != nil {
		return err
	}
	if err := atomicfile.Write(h.path(name+".key"), key, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(h.path(name+".crt"), crt, 0o600)
}

// elsewhere is the internal CA whose root's key another job has: signed says that it is so,
// and that there is an intermediate certificate. A root of before, whose key is here, stays
// here until a person gives it up.
func (h *healer) elsewhere() (signed bool, err error) {
	ctx := context.Background()
	known, unheard := authority.Ask(ctx, h.config.Authority, authority.Question{})
	if known.HasRetired(readRoot(h.path(rootKey + ".crt"))) {
		// The certificates first: while the root is there the next start comes here again.
		if err := errors.Join(h.aside("certificates/local", "is of a root that was given up"), h.aside(authorityKey, "was given up")); err != nil {
			return false, err
		}
	}
	if published := readRoot(h.config.RootFile); known.HasRetired(published) {
		if err := os.Remove(h.config.RootFile); err != nil {
			return false, err
		}
	}
	if there(h.path(rootKey + ".key")) {
		return false, nil
	}
	root := readRoot(h.path(rootKey + ".crt"))
	usable := h.hasIntermediate(root) && authority.MayName(root, h.config.Names) == nil
	if usable && !h.due() {
		return true, nil
	}
	err = unheard
	if err == nil && !usable {
		err = h.withoutIntermediate()
	}
	if err == nil {
		err = h.newIntermediate(ctx)
	}
	if err != nil && usable {
		h.moved = append(h.moved, "no other intermediate certificate could be had: "+err.Error())
		err = nil
	}
	return err == nil, err
}

// due says whether the intermediate certificate that is there should be replaced.
func (h *healer) due() bool {
	inter, ok := h.readPair(interKey)
	return !ok || h.now.After(inter.Leaf.NotAfter.Add(-inter.Leaf.NotAfter.Sub(inter.Leaf.NotBefore)/3))
}

// newIntermediate gets one from the job that has the root's key.
func (h *healer) newIntermediate(ctx context.Context) error {
	trusted := h.config.RootFile
	if readRoot(trusted) == nil {
		trusted = h.path(rootKey + ".crt")
	}
	text, err := os.ReadFile(trusted)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	root, crt, key, err := authority.NewIntermediate(ctx, h.config.Authority, text, h.config.Names)
	if err != nil {
		return err
	}
	defer clear(key)
	if err := h.writePair(interKey, crt, key); err != nil {
		return err
	}
	return atomicfile.Write(h.path(rootKey+".crt"), root, 0o600)
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
		return fmt.Errorf("%w: %s", authority.ErrRoot, crt)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		return fmt.Errorf("%w: %s has no key: %w", authority.ErrRoot, crt, err)
	}
	defer clear(private)
	if _, err := tls.X509KeyPair(text, private); err != nil {
		return fmt.Errorf("%w: %s and %s do not belong together", authority.ErrRoot, published, key)
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

// NewRoot gives up the root that clients have, at the job that has its key, whose folder
// this is. At its next start the front puts aside what is left of it.
func NewRoot(c Config, folder string, now time.Time) error {
	if c.Issuer != config.TLSInternal || c.RootFile == "" {
		return fmt.Errorf("issuer is %q: there is no root of its own", c.Issuer)
	}
	var given [][]byte
	for _, file := range []string{c.RootFile, filepath.Join(c.Storage, rootKey+".crt")} {
		text, err := readOthers(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		given = append(given, text)
	}
	if err := authority.Retire(folder, given...); err != nil {
		return err
	}
	// A key of before is the front's own, which without it asks the job.
	keys, err := dirfs.Open(filepath.Join(c.Storage, authorityKey))
	if err == nil {
		name := filepath.Base(rootKey) + ".key"
		if err = keys.RenameNew(name, name+".given-up-"+strconv.FormatInt(now.Unix(), 10)); err == nil {
			err = keys.Sync()
		}
		keys.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := dirfs.Open(filepath.Dir(c.RootFile))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(filepath.Base(c.RootFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return dir.Sync()
}

// readOthers reads a small file in a folder of somebody else's.
func readOthers(file string) ([]byte, error) {
	dir, err := dirfs.Open(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.Open(filepath.Base(file))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, atomicfile.MaxSmall))
	return text, errors.Join(err, f.Close())
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

// watchDue replaces the intermediate certificate in time where another job has the root's
// key, and calls end then: Caddy reads what it signs with when it starts.
func watchDue(ctx context.Context, tick <-chan time.Time, now func() time.Time, c Config, end func(error)) {
	log := caddy.Log().Named("storage")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		h := &healer{config: c, now: now()}
		if there(h.path(rootKey+".key")) || !h.due() {
			continue
		}
		if err := h.newIntermediate(ctx); err != nil {
			log.Error("no other intermediate certificate could be had: " + err.Error())
			continue
		}
		log.Info("there is another intermediate certificate; the front starts anew to sign with it")
		end(nil)
		return
	}
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
