package front

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"strongroom.example/appliance/base/atomicfile"
)

// A renewal writes two files, and whoever reads them in between finds a pair
// that does not fit.
const (
	// RenewalPatience is how long that may last before a person must look.
	RenewalPatience = time.Minute
	// renewalForgotten is how old a note is that no try of now has left.
	renewalForgotten = 5 * time.Minute
)

// renewalNote holds since when the pair has not fitted, RFC 3339. systemd copies
// the two files when it starts a try, so that each is a process of its own.
func renewalNote(c Config) string { return c.Files.Cert + ".unfit" }

// RenewalUnderWay says, of a pair that has just been found not to fit, whether
// to try again soon. It remembers when that began, until RenewalPatience is over.
func RenewalUnderWay(c Config, now time.Time) (bool, error) {
	text, err := os.ReadFile(renewalNote(c))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// What is no time is as good as no note.
	since, perr := time.Parse(time.RFC3339Nano, string(text))
	if age := now.Sub(since); err == nil && perr == nil && age >= 0 && age < renewalForgotten {
		if age < RenewalPatience {
			return true, nil
		}
		return false, RenewalOver(c)
	}
	if err := atomicfile.Write(renewalNote(c), []byte(now.UTC().Format(time.RFC3339Nano)), 0o600); err != nil {
		return false, err
	}
	return true, nil
}

// RenewalOver forgets what RenewalUnderWay has remembered.
func RenewalOver(c Config) error {
	if err := os.Remove(renewalNote(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
