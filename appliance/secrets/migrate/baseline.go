package migrate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
)

const baselineFormat = 1

// Baseline are the findings that somebody has looked at. It is kept beside the
// code: it holds no value, no hash of one and no line, so that it tells nothing
// and stays true while files grow.
type Baseline struct {
	Format   int     `json:"format"`
	Findings []Known `json:"findings"`
}

// Known is one finding of a baseline, or several that are alike.
type Known struct {
	File  string `json:"file"` // relative to the tree's root, with slashes
	Name  string `json:"name,omitempty"`
	Rule  string `json:"rule"`
	Count int    `json:"count"`
}

func (k Known) key() string { return k.File + "\x00" + k.Name + "\x00" + k.Rule }

func (f Finding) known() Known { return Known{File: f.File, Name: f.Name, Rule: f.Rule, Count: 1} }

// Findings are all secrets of the tree, those in .env files too.
func (r *Report) Findings() []Finding {
	out := slices.Clone(r.NotMoved)
	for _, v := range r.Variables {
		for _, d := range v.Definitions {
			if d.Kind == "dotenv" && len(d.Secret) > 0 {
				out = append(out, Finding{File: d.File, Line: d.Line, Kind: d.Kind, Name: v.Name, Secret: d.Secret, Rule: d.Rule, Advice: "move it into Vault: strongroom migrate plan"})
			}
		}
	}
	sortFindings(out)
	return out
}

// Committed leaves out the findings in files that git ignores, and in its own: these are not
// about to be shared. Without git it leaves out none.
func Committed(ctx context.Context, root string, all []Finding) []Finding {
	var ask bytes.Buffer
	last := ""
	for _, f := range all {
		if f.File != last {
			ask.WriteString(f.File + "\x00")
			last = f.File
		}
	}
	ignored := map[string]bool{}
	if dir, err := filepath.Abs(root); err == nil {
		for _, p := range gitIgnored(ctx, dir, ask.Bytes()) {
			ignored[p] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool { return ignored[f.File] || f.File == gitConfig })
}

// NewBaseline takes all findings for known.
func NewBaseline(all []Finding) *Baseline {
	b := &Baseline{Format: baselineFormat, Findings: []Known{}}
	at := map[string]int{}
	for _, f := range all {
		k := f.known()
		if i, ok := at[k.key()]; ok {
			b.Findings[i].Count++
			continue
		}
		at[k.key()] = len(b.Findings)
		b.Findings = append(b.Findings, k)
	}
	slices.SortFunc(b.Findings, func(x, y Known) int {
		return cmp.Or(strings.Compare(x.File, y.File), strings.Compare(x.Name, y.Name), strings.Compare(x.Rule, y.Rule))
	})
	return b
}

// Encode writes one finding a line, so that two branches merge.
func (b *Baseline) Encode() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "{\n  \"format\": %d,\n  \"findings\": [", b.Format)
	for i, k := range b.Findings {
		line, err := json.Marshal(k)
		if err != nil {
			return nil, fmt.Errorf("baseline: %w", err)
		}
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n    %s", line)
	}
	out.WriteString("\n  ]\n}\n")
	return out.Bytes(), nil
}

// maxBaseline bounds a baseline that is read, in bytes.
const maxBaseline = 32 << 20

// ReadBaseline reads a baseline's file, and not what is in it.
func ReadBaseline(file string) ([]byte, error) { return atomicfile.ReadSmall(file, maxBaseline) }

// ParseBaseline reads what Encode wrote, from file.
func ParseBaseline(file string, data []byte) (*Baseline, error) {
	var b Baseline
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return nil, fmt.Errorf("baseline %q: %w", file, err)
	}
	if b.Format != baselineFormat {
		return nil, fmt.Errorf("baseline %q: format %d must be %d", file, b.Format, baselineFormat)
	}
	if dec.More() {
		return nil, fmt.Errorf("baseline %q: something follows its end", file)
	}
	seen := map[string]bool{}
	for i, k := range b.Findings {
		switch {
		case !filepath.IsLocal(filepath.FromSlash(k.File)) || path.Clean(k.File) != k.File:
			return nil, fmt.Errorf("baseline %q: findings[%d]: file %q must be a path below the tree's root", file, i, k.File)
		case k.Rule == "" || k.Count < 1:
			return nil, fmt.Errorf("baseline %q: findings[%d]: %q has no rule or no count", file, i, k.File)
		case seen[k.key()]:
			return nil, fmt.Errorf("baseline %q: findings[%d]: %q of %q stands there twice", file, i, k.Name, k.File)
		}
		seen[k.key()] = true
	}
	return &b, nil
}

// Compared is what a scan has found, beside a baseline.
type Compared struct {
	Fresh []Finding `json:"new"` // that are not known; of several alike the last. Never nil
	Gone  []Known   `json:"gone"`
	// Moved are files of the baseline by the names that they have now.
	Moved map[string]string `json:"moved,omitempty"`
	// Carried are secrets of the baseline that stand in another file now.
	Carried []Carried `json:"carried,omitempty"`
}

// Carried is a finding, and which one of the baseline it is.
type Carried struct {
	Finding
	From Known `json:"from"`
}

// Compare holds all findings against the baseline. A file that was moved is the one
// that it was, and so is a secret.
func (b *Baseline) Compare(all []Finding, t Tree) Compared {
	c := Compared{Fresh: []Finding{}, Moved: b.moved(all, t)}
	left := map[string]int{}
	for _, k := range b.Findings {
		left[k.key()] = k.Count
	}
	for _, f := range all {
		key := c.known(f).key()
		if left[key] > 0 {
			left[key]--
			continue
		}
		c.Fresh = append(c.Fresh, f)
	}
	b.carried(&c, left, t)
	for _, k := range b.Findings {
		if n := left[k.key()]; n > 0 {
			k.Count = n
			c.Gone = append(c.Gone, k)
		}
	}
	return c
}

// known is the finding as the baseline has it.
func (c *Compared) known(f Finding) Known {
	k := f.known()
	if i := slices.IndexFunc(c.Carried, func(o Carried) bool { return o.Line == f.Line && o.known() == k }); i >= 0 {
		return c.Carried[i].From
	}
	k.File = cmp.Or(c.Moved[f.File], f.File)
	return k
}
