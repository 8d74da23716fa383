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

// unitSucceeded is the id of systemd's message about that (sd-messages.h,
// SD_MESSAGE_UNIT_SUCCESS).
const unitSucceeded = "7ad2d189f7e94e70a38c781354912448"

// Succeeded says whether a unit has ended well since then. A journal that cannot be read
// says no: then a failure is told once more, or not, as if nothing were known.
func Succeeded(ctx context.Context, unit string, since time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := command.New(ctx, "/usr/bin/journalctl", "--since", "@"+strconv.FormatInt(since.Unix(), 10), "--lines", "1", "--output", "cat", "--no-pager", "--quiet",
		"UNIT="+unit, "MESSAGE_ID="+unitSucceeded).Output()
	return err == nil && len(bytes.TrimSpace(out)) > 0
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
