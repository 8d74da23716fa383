package doctor

import (
	"bytes"
	"io"
	"slices"
)

const (
	// sieveBlock is how much a sieve searches at once, in bytes.
	sieveBlock = 256 << 10
	// sieveOverlap of a block without an end of line is searched again with the
	// next one: more than any secret's telling part has.
	sieveOverlap = 4 << 10
)

// sieve searches a text for secrets as it is written to it, in bounded memory:
// whole lines, and long ones in blocks that overlap.
type sieve struct {
	rest  []byte
	lines int
	found []string // kinds of secrets, in the order in which they came
}

var _ io.Writer = (*sieve)(nil)

func (s *sieve) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(len(p), sieveBlock)]
		p = p[len(part):]
		s.lines += bytes.Count(part, []byte("\n"))
		s.rest = append(s.rest, part...)
		if len(s.rest) < sieveBlock {
			continue
		}
		end, keep := bytes.LastIndexByte(s.rest, '\n')+1, 0
		if end == 0 {
			end, keep = len(s.rest), sieveOverlap
		}
		s.search(s.rest[:end])
		s.rest = append(s.rest[:0], s.rest[end-keep:]...)
	}
	return n, nil
}

// end searches what is left.
func (s *sieve) end() {
	s.search(s.rest)
	clear(s.rest)
	s.rest = nil
}

func (s *sieve) search(text []byte) {
	for _, what := range secretsIn(text) {
		if !slices.Contains(s.found, what) {
			s.found = append(s.found, what)
		}
	}
}
