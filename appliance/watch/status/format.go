package status

import (
	"fmt"
	"time"

	"strongroom.example/appliance/base/words"
)

// span is a duration as people say it: its largest unit, or two of them.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return words.Count(int(d/day), "day")
}

// maxText bounds what others' errors may take of the screen, in characters.
const maxText = 160
