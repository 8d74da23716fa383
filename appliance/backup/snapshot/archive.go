package snapshot

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// The members of a raft snapshot archive, as HashiCorp's raft-snapshot library
// writes them.
const (
	memberMeta   = "meta.json"
	memberState  = "state.bin"
	memberSums   = "SHA256SUMS"
	memberSealed = "SHA256SUMS.sealed"
)

// maxSmallMember bounds every member but state.bin, in bytes. Vault itself
// refuses to restore an archive with a larger one.
const maxSmallMember = 8191

// Archive is what a raft snapshot archive says of itself.
type Archive struct {
	ID        string // raft's name for the snapshot: "term-index-milliseconds" or "bolt-snapshot"
	Index     uint64 // raft index up to which it holds the state
	Term      uint64 // raft term of that index
	StateSize int64  // bytes of state.bin, uncompressed
	// Sealed tells whether the sums are there a second time, encrypted by
	// Vault's seal. Vault checks those on a restore without force.
	Sealed bool
	// Servers are raft's, of the Vault that it is of.
	Servers []Server
}

// Server is one of raft's nodes.
type Server struct{ ID, Address string }

// CheckArchive reads a raft snapshot archive to the end of r and checks that it
// is whole, that it agrees with its own SHA256SUMS, and that it holds nothing
// else. It keeps none of the state in memory.
//
// A fault of the archive is ErrTruncated, ErrCorrupt or ErrTrailing; an error
// of r is returned as it is.
//
// It cannot tell who made the archive: sums prove integrity only.
func CheckArchive(r io.Reader) (Archive, error) {
	src := &sourceReader{r: r}
	a, err := checkArchive(bufio.NewReaderSize(src, 64<<10))
	if err == nil {
		return a, nil
	}
	// What the source said is the cause; that the archive then ends early is
	// only its effect.
	if src.err != nil {
		return Archive{}, fmt.Errorf("read snapshot archive: %w", src.err)
	}
	return Archive{}, fmt.Errorf("snapshot archive: %w", err)
}

// sourceReader remembers the error that its reader ended with.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func checkArchive(r *bufio.Reader) (Archive, error) {
	// RFC 1952: reserved flags must be refused; Go's reader passes them over.
	if h, err := r.Peek(4); err == nil && h[3]&0xe0 != 0 {
		return Archive{}, fmt.Errorf("%w: gzip header has the flags %#x", ErrCorrupt, h[3])
	}
	gz, err := gzip.NewReader(r)
	if err != nil {
		return Archive{}, classify("gzip header", err)
	}
	defer gz.Close()
	// Concatenated gzip members would decompress as one: whatever follows the
	// first is not part of a snapshot.
	gz.Multistream(false)

	a, err := checkMembers(tar.NewReader(gz))
	if err != nil {
		return Archive{}, err
	}
	// The gzip checksum is only compared when its end has been read.
	extra, err := io.Copy(io.Discard, gz)
	if err != nil {
		return Archive{}, classify("gzip stream", err)
	}
	if extra > 0 {
		return Archive{}, fmt.Errorf("%w: %d bytes after the last member", ErrTrailing, extra)
	}
	switch _, err := r.ReadByte(); {
	case err == nil:
		return Archive{}, fmt.Errorf("%w: more follows the end of the gzip stream", ErrTrailing)
	case err != io.EOF:
		return Archive{}, classify("gzip stream", err)
	}
	return a, nil
}

// members is what has been read of an archive so far.
type members struct {
	meta   []byte
	sums   []byte
	sealed bool
	hashes map[string]hash.Hash
	sizes  map[string]int64
}

func checkMembers(tr *tar.Reader) (Archive, error) {
	m := members{hashes: map[string]hash.Hash{}, sizes: map[string]int64{}}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Archive{}, classify("tar header", err)
		}
		if err := m.read(h, tr); err != nil {
			return Archive{}, err
		}
	}
	return m.check()
}

func (m *members) read(h *tar.Header, r io.Reader) error {
	switch h.Name {
	case memberMeta, memberState, memberSums, memberSealed:
	default:
		return fmt.Errorf("%w: unexpected member %q", ErrCorrupt, h.Name)
	}
	if _, twice := m.sizes[h.Name]; twice {
		return fmt.Errorf("%w: member %q is there twice", ErrCorrupt, h.Name)
	}
	// A sparse member claims any size without holding it.
	if h.Typeflag != tar.TypeReg || sparse(h) {
		return fmt.Errorf("%w: member %q is not a plain file", ErrCorrupt, h.Name)
	}
	if h.Name != memberState && h.Size > maxSmallMember {
		return fmt.Errorf("%w: member %q has %d bytes, more than %d", ErrCorrupt, h.Name, h.Size, maxSmallMember)
	}
	m.sizes[h.Name] = h.Size
	sum := sha256.New()
	m.hashes[h.Name] = sum

	if h.Name == memberState {
		if _, err := io.Copy(sum, r); err != nil {
			return classify("member "+h.Name, err)
		}
		return nil
	}
	data, err := io.ReadAll(io.TeeReader(r, sum))
	if err != nil {
		return classify("member "+h.Name, err)
	}
	switch h.Name {
	case memberMeta:
		m.meta = data
	case memberSums:
		m.sums = data
	case memberSealed:
		m.sealed = len(data) > 0
	}
	return nil
}

func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (m *members) check() (Archive, error) {
	for _, name := range []string{memberMeta, memberState, memberSums} {
		if _, ok := m.sizes[name]; !ok {
			return Archive{}, fmt.Errorf("%w: member %q is missing", ErrTruncated, name)
		}
	}
	if err := m.checkSums(); err != nil {
		return Archive{}, err
	}
	var meta struct {
		ID          string
		Index, Term uint64
		Size        int64

		Configuration struct{ Servers []Server }
	}
	if err := json.Unmarshal(m.meta, &meta); err != nil {
		return Archive{}, fmt.Errorf("%w: member %q: %w", ErrCorrupt, memberMeta, err)
	}
	if meta.Index == 0 || meta.Term == 0 {
		return Archive{}, fmt.Errorf("%w: member %q has raft index %d, term %d", ErrCorrupt, memberMeta, meta.Index, meta.Term)
	}
	if meta.Size != m.sizes[memberState] {
		return Archive{}, fmt.Errorf("%w: member %q has %d bytes, %q says %d",
			ErrCorrupt, memberState, m.sizes[memberState], memberMeta, meta.Size)
	}
	return Archive{
		ID: meta.ID, Index: meta.Index, Term: meta.Term,
		StateSize: meta.Size, Sealed: m.sealed, Servers: meta.Configuration.Servers,
	}, nil
}

// checkSums compares meta.json and state.bin with SHA256SUMS, which must name
// these two and nothing else.
func (m *members) checkSums() error {
	seen := map[string]bool{}
	for line := range strings.Lines(string(m.sums)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || len(sum) != hex.EncodedLen(sha256.Size) {
			return fmt.Errorf("%w: member %q has the line %q", ErrCorrupt, memberSums, line)
		}
		if (name != memberMeta && name != memberState) || seen[name] {
			return fmt.Errorf("%w: member %q names %q", ErrCorrupt, memberSums, name)
		}
		seen[name] = true
		if got := hex.EncodeToString(m.hashes[name].Sum(nil)); got != sum {
			return fmt.Errorf("%w: member %q has the sum %s, %q says %s", ErrCorrupt, name, got, memberSums, sum)
		}
	}
	if len(seen) != 2 {
		return fmt.Errorf("%w: member %q names %d of 2 members", ErrCorrupt, memberSums, len(seen))
	}
	return nil
}

// classify turns a decoder's error into a sentinel of this package.
func classify(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return fmt.Errorf("%w: %s ends early", ErrTruncated, what)
	}
	return fmt.Errorf("%w: %s: %w", ErrCorrupt, what, err)
}
