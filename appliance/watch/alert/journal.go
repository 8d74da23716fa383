package alert

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"strongroom.example/appliance/base/command"
	"strongroom.example/appliance/base/mask"
)

// maxLine bounds a line of the message, in bytes.
const maxLine = 500

// Journal gives a unit's last n lines, masked. invocation, where it is known,
// keeps to the run that failed.
func Journal(ctx context.Context, unit, invocation string, n int, known ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	args := []string{"--unit", unit, "--lines", strconv.Itoa(n), "--output", "cat", "--no-pager", "--quiet"}
	if invocation != "" {
		args = append(args, "_SYSTEMD_INVOCATION_ID="+invocation)
	}
	out, err := command.New(ctx, "/usr/bin/journalctl", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("journal of %s: %w", unit, err)
	}
	return maskLines(out, known...), nil
}

func maskLines(out []byte, known ...string) []string {
	// The whole first: a key may stretch over lines.
	var lines []string
	s := bufio.NewScanner(bytes.NewReader(mask.PrivateKeys(out)))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		l := mask.Text(s.Text(), known...)
		if len(l) > maxLine {
			l = strings.ToValidUTF8(l[:maxLine], "") + "…"
		}
		lines = append(lines, l)
	}
	return lines
}
