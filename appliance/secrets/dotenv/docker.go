package dotenv

import (
	"strings"
	"unicode"
)

// dockerLine is the longest line that docker's CLI reads, in bytes: the buffer
// of its scanner.
const dockerLine = 64<<10 - 1

// parseDocker follows docker's CLI 28, pkg/kvfile: docker run --env-file, and
// docker-compose's env_file with "format: raw". What stands behind "=" is the
// value, with quotes, comments and blanks.
func parseDocker(text string) (out []Statement, faults []*LineError) {
	offset, line := 0, 0
	for offset < len(text) {
		line++
		raw, _, more := strings.Cut(text[offset:], "\n")
		start := offset
		offset += len(raw)
		if more {
			offset++
		}
		fault := func(reason string) { faults = append(faults, &LineError{Line: line, Reason: reason}) }
		if len(raw) > dockerLine {
			fault("a line of 64 KiB or more, which docker does not read")
			continue
		}
		if raw = strings.TrimSuffix(raw, "\r"); line == 1 {
			raw = strings.TrimPrefix(raw, bom)
		}
		raw = strings.TrimLeftFunc(raw, unicode.IsSpace)
		if raw == "" || raw[0] == '#' {
			continue
		}
		name, value, has := strings.Cut(raw, "=")
		switch {
		case name == "":
			fault(`no name before "="`)
		case strings.ContainsFunc(name, unicode.IsSpace):
			fault("a blank in a name (docker takes no export, and no blanks around \"=\")")
		default:
			if start == 0 && strings.HasPrefix(text, bom) {
				start = len(bom)
			}
			out = append(out, Statement{Name: name, Value: value, HasValue: has, Literal: true, Line: line, Start: start, End: offset})
		}
	}
	return out, faults
}
