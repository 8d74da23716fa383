// Package authority keeps the key of the internal CA's root away from the front, which
// faces the internet: a job without a network has it, and signs intermediate certificates
// of some weeks for whoever asks at its socket, which is the front alone. What has taken
// the front over can sign for its names until the last of those ends, and no longer.
//
// The root is made at the first question, and is never replaced by itself: clients hold it
// as a file.
package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

const (
	// IntermediateLife is that of an intermediate certificate. A new one is asked for when
	// two thirds are over.
	IntermediateLife = 30 * 24 * time.Hour
	// early is how far back one begins, for clients whose clocks are behind.
	early = time.Minute
	// patience of either side, and the most that either takes.
	patience = 10 * time.Second
	most     = 64 << 10

	lockFile, rootFile, keyFile = "lock", "root.crt", "root.key"
	retiredPrefix               = "retired-"
)

// ErrRoot says that the root which clients trust is damaged or gone. It is never replaced
// without a person's word: see Retire.
var ErrRoot = errors.New("the internal CA's root is damaged or gone")

// Question is what is asked at the socket, as JSON.
type Question struct {
	// Request is a PKCS #10 request in DER for an intermediate certificate, of which the
	// public key counts alone. Without one nothing is made.
	Request []byte `json:"request,omitempty"`
	// Trusted is the root that clients have been given, in PEM: no other signs while
	// nobody has retired it.
	Trusted string `json:"trusted,omitempty"`
}

// Answer is what comes back, as JSON.
type Answer struct {
	Root         string   `json:"root,omitempty"`         // PEM
	Intermediate string   `json:"intermediate,omitempty"` // PEM
	Retired      []string `json:"retired,omitempty"`      // fingerprints of roots that a person has given up
	Error        string   `json:"error,omitempty"`
}

// Serve answers one question from conn. Folder has the root, and is this job's alone; names
// are what a root that it has to make may sign for.
func Serve(conn io.ReadWriter, folder string, names []string, now time.Time) error {
	var q Question
	err := json.NewDecoder(io.LimitReader(conn, most)).Decode(&q)
	if err != nil {
		err = fmt.Errorf("no question came: %w", err)
	}
	var a Answer
	if err == nil {
		a, err = answer(q, folder, names, now)
	}
	if err != nil {
		a = Answer{Error: err.Error()}
	}
	return errors.Join(err, json.NewEncoder(conn).Encode(a))
}

func answer(q Question, folder string, names []string, now time.Time) (Answer, error) {
	unlock, err := lock(folder)
	if err != nil {
		return Answer{}, err
	}
	defer unlock()
	retired, err := retiredRoots(folder)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Retired: retired}
	if len(q.Request) == 0 {
		return a, nil
	}
	request, err := x509.ParseCertificateRequest(q.Request)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return Answer{}, fmt.Errorf("the request: %w", err)
	}
	root, err := a.current(folder, []byte(q.Trusted), names, now)
	if err != nil {
		return Answer{}, err
	}
	if err := MayName(root.Leaf, names); err != nil {
		return Answer{}, err
	}
	intermediate, err := sign(root, request.PublicKey, now)
	if err != nil {
		return Answer{}, err
	}
	a.Root, a.Intermediate = string(encodeCertificate(root.Leaf.Raw)), string(intermediate)
	return a, nil
}

// lock keeps two jobs from making a root each.
func lock(folder string) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(folder, lockFile), "")
}

func retiredRoots(folder string) ([]string, error) {
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		name, ours := strings.CutPrefix(f.Name(), retiredPrefix)
		if fingerprint, ok := strings.CutSuffix(name, ".crt"); ours && ok {
			out = append(out, fingerprint)
		}
	}
	return out, nil
}

// HasRetired says whether a person has given up root.
func (a Answer) HasRetired(root *x509.Certificate) bool {
	return root != nil && slices.Contains(a.Retired, Fingerprint(root))
}

// current is the root that signs: the one that is there, or, where nobody has been given
// one that still counts, another.
func (a Answer) current(folder string, trusted []byte, names []string, now time.Time) (*tls.Certificate, error) {
	client := ReadRoot(trusted)
	if a.HasRetired(client) {
		client = nil
	}
	at := func(name string) string { return filepath.Join(folder, name) }
	crt, err := readOrNone(at(rootFile))
	if err != nil {
		return nil, err
	}
	key, err := readOrNone(at(keyFile))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	if a.HasRetired(ReadRoot(crt)) {
		crt, key = nil, nil // what Retire has not come to
	}
	pair, err := tls.X509KeyPair(crt, key)
	switch {
	case err == nil && (client == nil || client.Equal(pair.Leaf)):
		return &pair, nil
	case err == nil:
		return nil, fmt.Errorf("%w: clients hold another root than that of %s: bring the folder back as it was when they were given it, or give theirs up with strongroom front new-root", ErrRoot, folder)
	case client != nil:
		// Its certificate is what clients hold.
		pair, err := tls.X509KeyPair(trusted, key)
		if err != nil || client.CheckSignatureFrom(client) != nil {
			return nil, fmt.Errorf("%w: %s has not the key of the root that clients hold: bring the folder back from a backup, or give the root up with strongroom front new-root", ErrRoot, folder)
		}
		return &pair, atomicfile.Write(at(rootFile), encodeCertificate(client.Raw), 0o600)
	case len(crt) > 0:
		// Half of what was whole: a new root's certificate is written last.
		return nil, fmt.Errorf("%w: %s has no key that fits: bring the folder back from a backup, or give the root up with strongroom front new-root", ErrRoot, at(rootFile))
	}
	if crt, key, err = NewRoot(names, now); err != nil {
		return nil, err
	}
	defer clear(key)
	// The certificate is the commit point: a key without one is half a root.
	if err := atomicfile.Write(at(keyFile), key, 0o600); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(at(rootFile), crt, 0o600); err != nil {
		return nil, err
	}
	pair, err = tls.X509KeyPair(crt, key)
	return &pair, err
}

func readOrNone(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func sign(root *tls.Certificate, public crypto.PublicKey, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	end := now.Add(IntermediateLife)
	if end.After(root.Leaf.NotAfter) {
		end = root.Leaf.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Strongroom front intermediate"},
		NotBefore: now.Add(-early), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, root.Leaf, public, root.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("sign an intermediate certificate: %w", err)
	}
	return encodeCertificate(der), nil
}

// Retire gives up the root in folder, and those of given, each in PEM or damaged. The next
// question makes another. The old ones stay in folder, where nothing signs with them.
func Retire(folder string, given ...[]byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	unlock, err := lock(folder)
	if err != nil {
		return err
	}
	defer unlock()
	at := func(name string) string { return filepath.Join(folder, name) }
	crt, err := readOrNone(at(rootFile))
	if err != nil {
		return err
	}
	key, err := readOrNone(at(keyFile))
	if err != nil {
		return err
	}
	defer clear(key)
	for _, text := range append(given, crt) {
		root := ReadRoot(text)
		if root == nil {
			continue
		}
		// Its key first, which a next root would write over.
		name := at(retiredPrefix + Fingerprint(root))
		if _, err := tls.X509KeyPair(text, key); err == nil {
			if err := atomicfile.Write(name+".key", key, 0o600); err != nil {
				return err
			}
		}
		if err := atomicfile.Write(name+".crt", text, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{rootFile, keyFile} {
		if err := os.Remove(at(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return atomicfile.SyncDir(folder)
}

// Ask asks the job at socket.
func Ask(ctx context.Context, socket string, q Question) (Answer, error) {
	a, err := ask(ctx, socket, q)
	if err != nil {
		return a, fmt.Errorf("the internal CA's job at %s: %w; journalctl -u 'strongroom-front-authority@*' has why", socket, err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

func ask(ctx context.Context, socket string, q Question) (a Answer, err error) {
	d := net.Dialer{Timeout: patience}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return a, err
	}
	defer conn.Close() //nolint:errcheck // all was read
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return a, err
	}
	err = json.NewDecoder(io.LimitReader(conn, most)).Decode(&a)
	return a, err
}

// NewIntermediate asks the job at socket for an intermediate certificate of a key that is
// made here, under the root that clients trust (PEM; none for the first). All is PEM.
func NewIntermediate(ctx context.Context, socket string, trusted []byte, names []string) (root, crt, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := Ask(ctx, socket, Question{Request: request, Trusted: string(trusted)})
	if err != nil {
		return nil, nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, nil, err
	}
	pair, err := tls.X509KeyPair([]byte(a.Intermediate), key)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the internal CA's job has signed another key: %w", err)
	}
	signer := ReadRoot([]byte(a.Root))
	if signer == nil || pair.Leaf.CheckSignatureFrom(signer) != nil {
		return nil, nil, nil, errors.New("the internal CA's job has answered with another root than it has signed by")
	}
	return []byte(a.Root), []byte(a.Intermediate), key, MayName(signer, names)
}
