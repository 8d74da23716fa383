package migrate

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

// StateDir is the folder of a migration, under the root of its tree. It holds
// names, versions and encrypted backups, and no value in clear, but for the
// moment in which a file on its way back is staged there.
const StateDir = ".strongroom-migrate"

// The operations that the journal tells of: each before it happens, but for done and back.
const (
	opIntent = "intent" // a secret will be written
	opDone   = "done"   // and was: the version is ours
	opMap    = "map"    // variables will be added to a mapping file
	opBackup = "backup" // files will be rewritten as this backup has it
	opTemp   = "temp"   // a file will be staged outside of the state folder
	opBack   = "back"   // and a file was restored: what is told of it above is done
	opReturn = "return" // what was before will be made current in Vault again
	opEnd    = "end"    // everything above was taken back
	opFile   = "file"   // of 0.1: a file will be written
)

// event is one line of the journal, which only ever grows: what was interrupted
// can be taken up, and every step be taken back. It has names, places and
// versions, and neither a value nor a sum of anything that holds one.
type event struct {
	Op      string `json:"op"`
	Mount   string `json:"mount,omitempty"`
	Path    string `json:"path,omitempty"` // in Vault
	Version int    `json:"version,omitempty"`
	// Had says that the version before held something.
	Had bool `json:"had,omitempty"`
	// Variables that a secret is made of, or that a mapping file gets.
	Variables []ref `json:"variables,omitempty"`
	// File of the tree, relative to its root, with slashes.
	File    string `json:"file,omitempty"`
	Created bool   `json:"created,omitempty"` // the file was not there before
	Backup  string `json:"backup,omitempty"`  // name in the state folder
	// SHA256 of what was put into File: in the journals of 0.1 alone.
	SHA256 string `json:"sha256,omitempty"`
	// Vault says of an end that what was written there was taken back as well.
	Vault bool `json:"vault,omitempty"`
}

// ref is a variable of a .env file, and the field that holds it in Vault.
type ref struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Field string `json:"field,omitempty"`
}

// state is the folder, held by one run at a time.
type state struct {
	root   string
	dir    string
	unlock func()
	log    *os.File
	fault  func(step string) error // for tests: called before each write
}

// stageDir holds what is on its way into the tree, each file readable by its
// owner alone. What a run that was killed has left there goes at the next.
const stageDir = "stage"

// openState makes the folder if need be and takes its lock.
func openState(root string) (*state, error) {
	dir := filepath.Join(root, StateDir)
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		// Root leaves others their tree to go on with.
		if err := atomicfile.LikeFolder(root, pathOwner(dir)); err != nil {
			return nil, fmt.Errorf("state folder: %w", err)
		}
	case !errors.Is(err, os.ErrExist):
		return nil, fmt.Errorf("state folder: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("state folder %q is no folder", dir)
	}
	unlock, err := statefile.Lock(filepath.Join(dir, "lock"), "")
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	s := &state{root: root, dir: dir, unlock: unlock}
	// The backups are encrypted, and still nobody's business in a repository.
	ignore, err := s.open(".gitignore", os.O_WRONLY)
	if err == nil {
		_, err = ignore.WriteString("*\n")
		err = errors.Join(err, ignore.Close())
	}
	if err == nil {
		s.log, err = s.open("journal", os.O_RDWR|os.O_APPEND)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state folder: %w", err), s.close())
	}
	if err := errors.Join(s.endLastLine(), s.sweep()); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

type pathOwner string

// Chown is for atomicfile.LikeFolder.
func (p pathOwner) Chown(uid, gid int) error { return os.Lchown(string(p), uid, gid) }

// open makes a file of the state folder if need be. A link is not followed: the
// tree may be another's, and this be root.
func (s *state) open(name string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, name), how|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file", f.Name())
	}
	if err == nil {
		err = atomicfile.LikeFolder(s.dir, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes what a run that was killed has left.
func (s *state) sweep() error {
	stage := filepath.Join(s.dir, stageDir)
	if err := os.RemoveAll(stage); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	err := os.Mkdir(stage, 0o700)
	if err == nil {
		err = atomicfile.LikeFolder(s.dir, pathOwner(stage))
	}
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	halves, err := filepath.Glob(filepath.Join(s.dir, ".backup-*.tmp-*"))
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	// 0.1 has staged beside each file that it wrote, and we do on another file system.
	swept := map[string]bool{}
	err = s.events(func(e event) error {
		if swept[e.File] || e.Op != opTemp && e.Op != opFile || !filepath.IsLocal(filepath.FromSlash(e.File)) {
			return nil
		}
		swept[e.File] = true
		err := atomicfile.Sweep(filepath.Join(s.root, filepath.FromSlash(e.File)))
		if errors.Is(err, fs.ErrPermission) {
			return nil // another user's, who sweeps it himself
		}
		return err
	})
	for _, name := range halves {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// step fails where a test wants it.
func (s *state) step(name string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(name)
}

// stage makes the new content of a file ready, in the state folder. It keeps what
// the file at its path has of owner, mode and attributes; one that is not there
// gets mode, and as is's owner if that is known.
func (s *state) stage(rel string, data []byte, as kept) (*atomicfile.File, error) {
	if err := s.step("stage " + rel); err != nil {
		return nil, err
	}
	return s.stageIn(filepath.Join(s.dir, stageDir), rel, data, as)
}

func (s *state) stageIn(dir, rel string, data []byte, as kept) (*atomicfile.File, error) {
	full := filepath.Join(s.root, filepath.FromSlash(rel))
	// Found out now, and not when the first of several files is in its place.
	if err := unix.Faccessat(unix.AT_FDCWD, filepath.Dir(full), unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return nil, &fs.PathError{Op: "write into the folder of", Path: full, Err: err}
	}
	f, err := atomicfile.CreateIn(dir, full, 0o600)
	if err != nil {
		return nil, err
	}
	switch _, err = os.Lstat(full); {
	case err == nil:
		f.Like(full)
	case errors.Is(err, os.ErrNotExist):
		f.Mode(as.mode)
		f.Attributes(as.attributes)
		if err = nil; as.owned && os.Geteuid() == 0 {
			err = f.Chown(as.uid, as.gid)
		} else {
			err = atomicfile.LikeFolder(filepath.Dir(full), f)
		}
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Ready()
	}
	if err != nil {
		f.Abort()
		return nil, err
	}
	return f, nil
}

// place moves a staged file to its path: the commit point of one file.
func (s *state) place(f *atomicfile.File, rel string, data []byte, as kept) error {
	if err := s.step("write " + rel); err != nil {
		f.Abort()
		return err
	}
	err := f.Commit()
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	// The folder is another file system: the file is staged beside its place, and
	// the journal knows where.
	if err := s.append(event{Op: opTemp, File: rel}); err != nil {
		return err
	}
	f, err = s.stageIn(filepath.Dir(filepath.Join(s.root, filepath.FromSlash(rel))), rel, data, as)
	if err != nil {
		return err
	}
	return f.Commit()
}

// put is stage and place in one.
func (s *state) put(rel string, data []byte, as kept) error {
	f, err := s.stage(rel, data, as)
	if err != nil {
		return err
	}
	return s.place(f, rel, data, as)
}

// endLastLine keeps half a line, left by a full disk or a crash, from spoiling
// the next one.
func (s *state) endLastLine() error {
	st, err := s.log.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	var last [1]byte
	if _, err := s.log.ReadAt(last[:], st.Size()-1); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if last[0] == '\n' {
		return nil
	}
	if _, err := s.log.Write([]byte{'\n'}); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (s *state) close() error {
	defer s.unlock()
	if s.log == nil {
		return nil
	}
	return s.log.Close()
}

// append makes events durable, all with one sync.
func (s *state) append(events ...event) error {
	if len(events) == 0 {
		return nil
	}
	if err := s.step("journal " + events[0].Op); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if _, err := s.log.Write(b.Bytes()); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := s.log.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// events reads the journal from its start. A line that a crash has cut is
// passed over: what it would have announced was not begun.
func (s *state) events(each func(event) error) error {
	f, err := os.Open(filepath.Join(s.dir, "journal"))
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// history is the journal, folded: what is still to be taken back.
type history struct {
	backups []string // oldest first
	// restored says how many of backups are taken back already, by file.
	restored map[string]int
	maps     []event
	writes   []*write // in Vault, in the order of their first versions
	// sums of what 0.1 has put into files, and whether it has made them.
	sums map[string][]string
	made map[string]bool
}

// left says whether data is what 0.1 has put into a file.
func (h *history) left(file string, data []byte) bool {
	return slices.Contains(h.sums[file], fmt.Sprintf("%x", sha256.Sum256(data)))
}

// write is a secret that this migration has written, or was about to.
type write struct {
	mount, path string
	base        int   // the version before the first of ours; 0 for none
	had         bool  // base held something
	versions    []int // ours, oldest first; the last one perhaps
	done        map[int]bool
	variables   []ref // of all of them
	returned    int   // the version by which base was, or was about to be, made current again
}

func (w *write) String() string { return w.mount + "/" + w.path }

func (s *state) history() (*history, error) {
	h := &history{restored: map[string]int{}, sums: map[string][]string{}, made: map[string]bool{}}
	by := map[string]*write{}
	err := s.events(func(e event) error {
		key := e.Mount + "\x00" + e.Path
		switch e.Op {
		case opBackup:
			h.backups = append(h.backups, e.Backup)
		case opFile:
			h.sums[e.File] = append(h.sums[e.File], e.SHA256)
			h.made[e.File] = h.made[e.File] || e.Created
		case opBack:
			h.restored[e.File] = len(h.backups)
		case opMap:
			h.maps = append(h.maps, e)
		case opIntent:
			w := by[key]
			if w == nil {
				w = &write{mount: e.Mount, path: e.Path, done: map[int]bool{}}
				by[key] = w
				h.writes = append(h.writes, w)
			}
			if !slices.Contains(w.versions, e.Version) {
				if !w.done[e.Version-1] {
					// The version before is somebody else's, or may be.
					w.base, w.had, w.versions, w.variables = e.Version-1, e.Had, nil, nil
				}
				w.versions = append(w.versions, e.Version)
			}
			w.returned = 0
			for _, v := range e.Variables {
				w.variables = slices.DeleteFunc(w.variables, func(old ref) bool { return old.Field == v.Field })
				w.variables = append(w.variables, v)
			}
		case opDone:
			if w := by[key]; w != nil {
				w.done[e.Version] = true
			}
		case opReturn:
			if w := by[key]; w != nil {
				w.returned = e.Version
			}
		case opEnd:
			h.backups, h.maps = nil, nil
			clear(h.restored)
			clear(h.sums)
			clear(h.made)
			if e.Vault {
				h.writes = nil
				clear(by)
			}
		}
		return nil
	})
	return h, err
}
