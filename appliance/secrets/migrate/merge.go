package migrate

import (
	"bytes"
	"errors"
	"slices"

	"strongroom.example/appliance/secrets/dotenv"
)

// errMerge is that two changes of one place contradict each other.
var errMerge = errors.New("was edited where the cutover had changed it")

// undo gives a file as it would be had the cutover that k was kept of never been,
// with all that was done to it since. superseded names variables that have
// another value by now, which stays.
func undo(now []byte, k kept) (out []byte, superseded []string, err error) {
	switch {
	case bytes.Equal(now, k.data):
		return now, nil, nil
	case k.after == nil:
		return nil, nil, errMerge
	case bytes.Equal(now, k.after):
		return k.data, nil, nil
	case k.dialect != 0:
		return putBack(now, k)
	}
	merged, ok := merge3(linesOf(k.after), linesOf(now), linesOf(k.data))
	if !ok {
		return nil, nil, errMerge
	}
	return []byte(join(merged)), nil, nil
}

// putBack adds the statements to a .env file that the cutover took out, each where
// it stood, and proves that everything else reads as before.
func putBack(now []byte, k kept) (out []byte, superseded []string, err error) {
	old, faults := readEnv(source{k.name, k.data}, k.dialect)
	current, more := readEnv(source{k.name, now}, k.dialect)
	if faults = append(faults, more...); len(faults) > 0 {
		return nil, nil, &Refused{faults}
	}
	was, err := dotenv.Parse(k.data, k.dialect)
	if err != nil {
		return nil, nil, err
	}
	left, err := dotenv.Parse(k.after, k.dialect)
	if err != nil {
		return nil, nil, err
	}
	before, after := namesOf(was), namesOf(left)
	taken := func(name string) bool { return before[name] && !after[name] }
	values := map[string]string{}
	for _, v := range old {
		values[v.Name] = v.Value
	}
	// An empty line that somebody has left for a moved variable gives way.
	if now, err = dotenv.Remove(now, k.dialect, func(s dotenv.Statement) bool {
		return taken(s.Name) && s.Value == "" && values[s.Name] != ""
	}); err != nil {
		return nil, nil, errMerge
	}
	is, err := dotenv.Parse(now, k.dialect)
	if err != nil {
		return nil, nil, err
	}
	skip := map[string]bool{}
	for _, v := range current {
		if taken(v.Name) && v.Value != "" {
			if value, there := values[v.Name]; there {
				skip[v.Name] = true
				if value != v.Value {
					superseded = append(superseded, v.Name)
				}
			}
		}
	}
	back := func(s dotenv.Statement) bool { return taken(s.Name) && !skip[s.Name] }
	if !slices.ContainsFunc(was.Statements, back) {
		return now, superseded, nil
	}
	// Where each stood, and at the end if that does not read well.
	for _, place := range []func(offset int) int{follow(k.after, now), func(int) int { return len(now) }} {
		out = insert(now, k.data, was, taken, back, place)
		if readsWith(out, k.dialect, is.Statements, was.Statements, back) {
			return out, superseded, nil
		}
	}
	return nil, nil, errMerge
}

func namesOf(f *dotenv.File) map[string]bool {
	out := map[string]bool{}
	for _, s := range f.Statements {
		out[s.Name] = true
	}
	return out
}

// insert puts the statements of old that back chooses into now. place is where an
// offset of what the cutover left lies today.
func insert(now, old []byte, was *dotenv.File, taken func(string) bool, back func(dotenv.Statement) bool, place func(int) int) []byte {
	type piece struct {
		at   int
		text []byte
	}
	var pieces []piece
	gone := 0 // bytes that were taken out so far
	for _, s := range was.Statements {
		if back(s) {
			pieces = append(pieces, piece{place(s.Start - gone), old[s.Start:s.End]})
		}
		if taken(s.Name) {
			gone += s.End - s.Start
		}
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return a.at - b.at })
	var out []byte
	at := 0
	newline := func() {
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
	}
	for _, p := range pieces {
		out = append(out, now[at:p.at]...)
		newline()
		out = append(out, p.text...)
		if at = p.at; at < len(now) {
			newline()
		}
	}
	return append(out, now[at:]...)
}

// readsWith says whether out has the statements of now in their order, and between
// them the chosen ones of old in theirs.
func readsWith(out []byte, d dotenv.Dialect, now, old []dotenv.Statement, chosen func(dotenv.Statement) bool) bool {
	f, err := dotenv.Parse(out, d)
	if err != nil {
		return false
	}
	var rest, added []dotenv.Statement
	for _, s := range f.Statements {
		if chosen(s) {
			added = append(added, s)
		} else {
			rest = append(rest, s)
		}
	}
	want := slices.DeleteFunc(slices.Clone(old), func(s dotenv.Statement) bool { return !chosen(s) })
	same := func(a, b dotenv.Statement) bool {
		return a.Name == b.Name && a.Value == b.Value && a.HasValue == b.HasValue && a.Literal == b.Literal
	}
	return slices.EqualFunc(rest, now, same) && slices.EqualFunc(added, want, same)
}

// follow says where an offset of a lies in b: behind the line that stood before it.
func follow(a, b []byte) func(int) int {
	was, is := linesOf(a), linesOf(b)
	same := match(was, is)
	starts := []int{0}
	for _, l := range is {
		starts = append(starts, starts[len(starts)-1]+len(l))
	}
	return func(offset int) int {
		line := 0
		for n := 0; line < len(was) && n+len(was[line]) <= offset; line++ {
			n += len(was[line])
		}
		for line--; line >= 0; line-- {
			if same[line] >= 0 {
				return starts[same[line]+1]
			}
		}
		return 0
	}
}

func linesOf(data []byte) []string {
	var out []string
	for l := range bytes.Lines(data) {
		out = append(out, string(l))
	}
	return out
}

func join(lines []string) string {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l)
	}
	return b.String()
}

// maxCells bounds the table of match, and so its memory: 32 MB.
const maxCells = 8 << 20

// match gives for each line of a the line of b that it is, in rising order, or -1:
// the longest common subsequence. Where that is too much work, beginning and end
// alone are compared.
func match(a, b []string) []int {
	out := make([]int, len(a))
	for i := range out {
		out[i] = -1
	}
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		out[head] = head
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		out[len(a)-1-tail] = len(b) - 1 - tail
		tail++
	}
	n, m := len(a)-head-tail, len(b)-head-tail
	if n == 0 || m == 0 || n*m > maxCells {
		return out
	}
	length := make([]int32, (n+1)*(m+1))
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			best := max(length[(i+1)*(m+1)+j], length[i*(m+1)+j+1])
			if a[head+i] == b[head+j] {
				best = max(best, length[(i+1)*(m+1)+j+1]+1)
			}
			length[i*(m+1)+j] = best
		}
	}
	for i, j := 0, 0; i < n && j < m; {
		switch {
		case a[head+i] == b[head+j] && length[i*(m+1)+j] == length[(i+1)*(m+1)+j+1]+1:
			out[head+i] = head + j
			i, j = i+1, j+1
		case length[(i+1)*(m+1)+j] >= length[i*(m+1)+j+1]:
			i++
		default:
			j++
		}
	}
	return out
}

// merge3 has the changes from base to mine and those from base to theirs; ok is
// false where both changed one place, each otherwise.
func merge3(base, mine, theirs []string) (out []string, ok bool) {
	toMine, toTheirs := match(base, mine), match(base, theirs)
	for i, x, y := 0, 0, 0; ; {
		for i < len(base) && toMine[i] == x && toTheirs[i] == y {
			out = append(out, base[i])
			i, x, y = i+1, x+1, y+1
		}
		j := i
		for j < len(base) && (toMine[j] < 0 || toTheirs[j] < 0) {
			j++
		}
		endX, endY := len(mine), len(theirs)
		if j < len(base) {
			endX, endY = toMine[j], toTheirs[j]
		}
		b, m, t := base[i:j], mine[x:endX], theirs[y:endY]
		switch {
		case slices.Equal(m, b), slices.Equal(m, t):
			out = append(out, t...)
		case slices.Equal(t, b):
			out = append(out, m...)
		default:
			// The same change and more, or lines added beside what the other has changed.
			if _, _, more := around(m, t); more {
				out = append(out, m...)
			} else if front, back, beside := around(m, b); beside {
				out = slices.Concat(out, front, t, back)
			} else if front, back, beside := around(t, b); beside {
				out = slices.Concat(out, front, m, back)
			} else {
				return nil, false
			}
		}
		if j == len(base) {
			return out, true
		}
		i, x, y = j, endX, endY
	}
}

// around is what stands in front of b and behind it in x, where b is whole in it.
func around(x, b []string) (front, back []string, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	for i := 0; i+len(b) <= len(x); i++ {
		if slices.Equal(x[i:i+len(b)], b) {
			return x[:i], x[i+len(b):], true
		}
	}
	return nil, nil, false
}
