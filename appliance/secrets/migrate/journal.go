package migrate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"strongroom.example/appliance/base/statefile"
)

// StateDir is the folder of a migration, under the root of its tree. It holds
// names, versions and encrypted backups, and no value in clear.
const StateDir = ".strongroom-migrate"

// event is one line of the journal. It is written before what it announces
// (intent) or after it (the others), so that a run that was killed can be
// taken up, and every step be taken back.
type event struct {
	Op      string `json:"op"` // intent, written, file, backup
	Mount   string `json:"mount,omitempty"`
	Path    string `json:"path,omitempty"` // in Vault
	Version int    `json:"version,omitempty"`
	// File of the tree, and the SHA-256 of what was put there, which holds no
	// secret.
	File    string `json:"file,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	Created bool   `json:"created,omitempty"` // the file was not there before
	Backup  string `json:"backup,omitempty"`  // name in the state folder
}

// state is the folder, held by one run at a time.
type state struct {
	dir    string
	unlock func()
	log    *os.File
}

// openState makes the folder if need be and takes its lock.
func openState(root string) (*state, error) {
	dir := filepath.Join(root, StateDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
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
	s := &state{dir: dir, unlock: unlock}
	// The backups are encrypted, and still nobody's business in a repository.
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("state folder: %w", err), s.close())
	}
	if s.log, err = os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), s.close())
	}
	if err := s.endLastLine(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
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

// reset forgets everything, after a whole rollback.
func (s *state) reset() error {
	if err := s.log.Truncate(0); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return s.log.Sync()
}
