package audit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"

	"strongroom.example/appliance/base/dirfs"
)

// stampFormat is in the names of rotated logs: audit-1.log.20261124T151500Z. It
// sorts by time.
const stampFormat = "20060102T150405Z"

// names of logs: the live one, the rotated one, the compressed one. A rotation
// in the same second as another has a number.
var logName = regexp.MustCompile(`^([^.].*\.log)(?:\.(\d{8}T\d{6}Z)(?:-(\d{1,6}))?(\.gz)?)?$`)

// logFile is one file of a log.
type logFile struct {
	name string // within the folder
	base string // the live log's name
	at   time.Time
	gz   bool
	size int64
	mod  time.Time
	mode os.FileMode
}

func (f logFile) live() bool { return f.at.IsZero() }

// parseName tells of what log a file is, and when it was rotated; ok is false
// for a file that is none of ours.
func parseName(name string) (f logFile, ok bool) {
	m := logName.FindStringSubmatch(name)
	if m == nil {
		return logFile{}, false
	}
	f = logFile{name: name, base: m[1], gz: m[4] != ""}
	if m[2] == "" {
		return f, true
	}
	at, err := time.Parse(stampFormat, m[2])
	if err != nil {
		return logFile{}, false
	}
	f.at = at
	return f, true
}

// scan lists the logs in dir, oldest first; live ones come last. Links, files of
// others and anything else that is not a plain file are passed over.
func scan(dir *dirfs.Dir) ([]logFile, error) {
	names, err := dir.Names()
	if err != nil {
		return nil, fmt.Errorf("audit logs: %w", err)
	}
	var out []logFile
	for _, name := range names {
		f, ok := parseName(name)
		if !ok {
			continue
		}
		info, err := dir.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("audit logs: %w", err)
		}
		if !info.Plain {
			continue
		}
		f.size, f.mod, f.mode = info.Size, info.ModTime, info.Mode
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b logFile) int {
		if a.live() != b.live() {
			if a.live() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return out, nil
}

// maxFirstLine bounds what is read to find the first entry's time, in bytes.
const maxFirstLine = 1 << 20

// entryTime is in every line that Vault writes.
var entryTime = regexp.MustCompile(`"time":("[^"\\]{1,64}")`)

// since is the time of a log's first entry, or when the file was last written
// where that can't be told.
func since(dir *dirfs.Dir, f logFile) time.Time {
	file, err := dir.Open(f.name)
	if err != nil {
		return f.mod
	}
	defer file.Close()
	return firstTime(file, f.mod)
}

func firstTime(r io.Reader, otherwise time.Time) time.Time {
	head, err := io.ReadAll(io.LimitReader(r, maxFirstLine))
	if err != nil {
		return otherwise
	}
	m := entryTime.FindSubmatch(head)
	if m == nil {
		return otherwise
	}
	var at time.Time
	if err := json.Unmarshal(m[1], &at); err != nil {
		return otherwise
	}
	return at
}

// rotatedName is a name for a log rotated at a time that no file has.
func rotatedName(base string, at time.Time, files []logFile) string {
	taken := map[string]bool{}
	for _, f := range files {
		taken[f.name] = true
	}
	stem := base + "." + at.UTC().Format(stampFormat)
	name := stem
	for n := 2; taken[name] || taken[name+".gz"]; n++ {
		name = fmt.Sprintf("%s-%d", stem, n)
	}
	return name
}
