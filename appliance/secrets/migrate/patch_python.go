package migrate

import (
	"bufio"
	"bytes"
	"context"
	_ "embed" // the program for Python
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"strongroom.example/config/machine"
)

// The program for Python, in the order of its parts: sources and places; what to
// patch; the patched text and its proof.
var (
	//go:embed patch_source.py
	patchSource string
	//go:embed patch_find.py
	patchFind string
	//go:embed patch_write.py
	patchWrite string

	patchProgram = patchSource + "\n" + patchFind + "\n" + patchWrite
)

// bootstrap reads the program from standard input, where no list of processes
// shows it, and runs it.
const bootstrap = "import sys; n = int(sys.stdin.readline()); exec(compile(sys.stdin.read(n), 'strongroom', 'exec'))"

const (
	// pythonStart is how long Python may take to begin.
	pythonStart = 20 * time.Second
	// maxPythonEnds bounds how often it is started again.
	maxPythonEnds = 5
)

// pythonPatcher patches Python code with Python's own parser, which it runs as a
// helper: it starts with the first file. Without a Python on this machine every
// file is left alone. Safe for concurrent use, one file at a time.
type pythonPatcher struct {
	ctx context.Context

	mu      sync.Mutex
	running *pythonHelper
	none    string // why there is no helper
	ends    int
}

// codePatch is what becomes of one file.
type codePatch struct {
	// patched is nil where nothing changes. It compiles, and its syntax tree is
	// the old one but for the import and the reads of moved variables.
	patched []byte
	// byHand are places, as "line N: why", that no patch covers.
	byHand []string
	// old and new are both texts to be shown: without their texts, comments and
	// defaults, which may be secrets.
	old, new string
}

func newPythonPatcher(ctx context.Context) *pythonPatcher { return &pythonPatcher{ctx: ctx} }

// close ends the helper.
func (p *pythonPatcher) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		p.running.end()
		p.running = nil
	}
}

// pythonWords are in every file that the patch could have to say something of,
// beside the names of variables.
var pythonWords = []string{"environ", "getenv", "EnvVar", "Settings", "putenv"}

// patch makes reads of the named variables go through the Python client's
// stand-in for os.environ, and says what it leaves alone.
func (p *pythonPatcher) patch(src source, names map[string]bool) codePatch {
	mentioned := linesThatName(src.data, names)
	if len(mentioned) == 0 && !mentions(src.data, pythonWords...) {
		return codePatch{}
	}
	a, left := p.ask(src.data, names)
	if left != "" {
		if len(mentioned) == 0 {
			return codePatch{}
		}
		out := codePatch{byHand: []string{fmt.Sprintf("line %d: the file is left alone: %s", mentioned[0].line, left)}}
		for _, m := range mentioned {
			out.byHand = append(out.byHand, fmt.Sprintf("line %d: %s is named", m.line, m.name))
		}
		return out
	}
	out := codePatch{patched: a.Patched, old: a.Old, new: a.New}
	for _, n := range a.Notes {
		out.byHand = append(out.byHand, fmt.Sprintf("line %d: %s", n.line, n.why))
	}
	return out
}

// pythonAnswer is what the program writes.
type pythonAnswer struct {
	Patched []byte       `json:"patched"`
	Notes   []pythonNote `json:"notes"`
	Left    string       `json:"left"`
	Old     string       `json:"old"`
	New     string       `json:"new"`
	Version string       `json:"version"`
}

type pythonNote struct {
	line int
	why  string
}

// UnmarshalJSON reads [line, why].
func (n *pythonNote) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&n.line, &n.why})
}

// ask gives the helper one file; left is why that was for nothing.
func (p *pythonPatcher) ask(data []byte, names map[string]bool) (a pythonAnswer, left string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.none == "" && p.running == nil {
		p.running, p.none = startPython(p.ctx)
	}
	if p.none != "" {
		return a, p.none
	}
	a, err := p.running.answer(map[string]any{"source": base64.StdEncoding.EncodeToString(data), "names": sortedKeys(names)})
	if err != nil {
		p.running.end()
		p.running = nil
		if p.ends++; p.ends == maxPythonEnds {
			p.none = "python3 ended again and again"
		}
		return a, "python3 ended while it read the file"
	}
	return a, a.Left
}

// pythonHelper is a Python that runs the program.
type pythonHelper struct {
	c   *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startPython takes the person's python3, or else the system's.
func startPython(ctx context.Context) (h *pythonHelper, none string) {
	var tried []string
	if p, err := exec.LookPath("python3"); err == nil && filepath.IsAbs(p) {
		tried = append(tried, p)
	}
	for _, dir := range filepath.SplitList(machine.SearchPath) {
		p := filepath.Join(dir, "python3")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && !slices.Contains(tried, p) {
			tried = append(tried, p)
		}
	}
	for _, p := range tried {
		if h, err := runPython(ctx, p); err == nil {
			return h, ""
		}
	}
	if len(tried) == 0 {
		return nil, "there is no python3 here to read it"
	}
	return nil, "no python3 here begins"
}

// runPython gives it an environment of its own: what Python reads from its
// environment and from the person's folders is left out by -I, and -S leaves out
// what is installed.
func runPython(ctx context.Context, python string) (*pythonHelper, error) {
	c := exec.CommandContext(ctx, python, "-I", "-S", "-c", bootstrap)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C.UTF-8"}
	c.Dir = "/"
	c.WaitDelay = 5 * time.Second
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	h := &pythonHelper{c, in, bufio.NewReader(out)}
	late := time.AfterFunc(pythonStart, func() { _ = c.Process.Kill() })
	defer late.Stop()
	if _, err = fmt.Fprintf(in, "%d\n%s", len(patchProgram), patchProgram); err == nil {
		var hello pythonAnswer
		if hello, err = h.read(); err == nil && hello.Version == "" {
			err = errors.New("another program answers")
		}
	}
	if err != nil {
		h.end()
		return nil, err
	}
	return h, nil
}

func (h *pythonHelper) answer(request map[string]any) (pythonAnswer, error) {
	line, err := json.Marshal(request)
	if err != nil {
		return pythonAnswer{}, err
	}
	if _, err := h.in.Write(append(line, '\n')); err != nil {
		return pythonAnswer{}, err
	}
	return h.read()
}

func (h *pythonHelper) read() (a pythonAnswer, err error) {
	line, err := h.out.ReadBytes('\n')
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(line, &a)
}

// end closes its input, at which it ends by itself, and kills it if it does not.
func (h *pythonHelper) end() {
	_ = h.in.Close()
	_ = h.c.Process.Kill()
	_ = h.c.Wait()
}

// namedLine is a line that has a name as a word.
type namedLine struct {
	line int
	name string
}

func linesThatName(data []byte, names map[string]bool) []namedLine {
	var out []namedLine
	line, at := 1, 0
	eachWord(data, func(from, to int) {
		name := string(data[from:to])
		if !names[name] {
			return
		}
		line += bytes.Count(data[at:from], []byte("\n"))
		at = from
		if m := (namedLine{line, name}); !slices.Contains(out, m) && len(out) < maxPlaces {
			out = append(out, m)
		}
	})
	return out
}
