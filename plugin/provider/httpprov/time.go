package httpprov

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
)

// time is a point in time; the zero time where it is absent or unreadable. It
// is for what nothing depends on; an end of life is read by end.
func (p *path) time(doc any) time.Time {
	t, _ := readTime(p.text(doc))
	return t
}

// end is when something ends. told is false where p selects nothing; the zero
// time means never, which a service says by null, by an empty text, 0, -1 or
// the year 1, and by nothing else.
func (p *path) end(doc any) (at time.Time, told bool, err error) {
	v, told, err := p.one(doc)
	if err != nil || !told || v == nil {
		return time.Time{}, told, err
	}
	text, scalar := provider.ScalarText(v)
	if _, truth := v.(bool); truth || !scalar {
		return time.Time{}, true, answerFault("%s is no time", p.source)
	}
	at, ok := readTime(text)
	if !ok {
		return time.Time{}, true, answerFault("%s is no time that can be read, its form is %s (9 is a digit, x a letter)", p.source, shape(text))
	}
	return at, true, nil
}

// seconds is a length of time, written as a number or as digits.
func (p *path) seconds(doc any) (d time.Duration, told bool, err error) {
	v, told, err := p.one(doc)
	if err != nil || !told || v == nil {
		return 0, false, err
	}
	text, _ := provider.ScalarText(v)
	n, parseErr := strconv.ParseInt(text, 10, 64)
	if parseErr != nil || n < 1 || n > maxLifeSeconds {
		return 0, true, answerFault("%s is no number of seconds", p.source)
	}
	return time.Duration(n) * time.Second, true, nil
}

const maxLifeSeconds = 100 * 365 * 24 * 3600

// shape is a text without its digits and letters, so that a person sees what
// kind of time it is and nothing that was not declared is quoted.
func shape(text string) string {
	if len(text) > 40 {
		text = text[:40]
	}
	return strconv.Quote(strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9':
			return '9'
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
			return 'x'
		case r > 0x7e || r < 0x20:
			return '?'
		}
		return r
	}, text))
}

var (
	// layouts are those that can be read in one way only: 01/02/2026 cannot.
	layouts = []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04Z07:00",
		"2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999 Z07:00", "2006-01-02 15:04:05.999999999 -0700",
		"2006-01-02 15:04:05.999999999 -0700 MST", "2006-01-02 15:04:05.999999999 MST", "2006-01-02 15:04:05.999999999",
		"20060102T150405Z", "2006/01/02 15:04:05", "2006/01/02", time.DateOnly,
		time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC, "Jan 2, 2006", "2 Jan 2006", "January 2, 2006",
	}
	// snowflake's SQL API writes a time with a zone as seconds since 1970 and
	// the zone's minutes + 1440, which change nothing about the point in time.
	epochWithZone = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) [0-9]{1,4}$`)
)

// readTime understands what services write: RFC 3339 with and without a zone
// (then UTC), dates that can be read in one way only, HTTP's and mail's
// formats, and seconds to nanoseconds since 1970. "", 0, -1 and the year 1 are
// "never". A number before 1973 is a length of time, and no point in it; an
// abbreviated zone other than UTC and GMT is not understood.
func readTime(s string) (time.Time, bool) {
	if s == "" || s == "0" || s == "-1" {
		return time.Time{}, true
	}
	if m := epochWithZone.FindStringSubmatch(s); m != nil {
		s = m[1]
	}
	if n, ok := epoch(s); ok {
		return n, !n.IsZero()
	}
	for _, layout := range layouts {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if zone, _ := t.Zone(); strings.Contains(layout, "MST") && !strings.Contains(layout, "-0700") && zone != "UTC" && zone != "GMT" {
			continue
		}
		if t.Year() <= 1 {
			return time.Time{}, true
		}
		if t = t.UTC(); t.Year() > 9999 { // by its zone; no record could hold it
			return time.Time{}, false
		}
		return t, true
	}
	return time.Time{}, false
}

// epoch reads a number since 1970, exactly; the zero time where it is a number
// and no time.
func epoch(s string) (at time.Time, isNumber bool) {
	whole, err := json.Number(s).Int64()
	if err != nil {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return time.Time{}, false
		}
		if !(f >= 1e8 && f < 1e19/4) {
			return time.Time{}, true
		}
		whole = int64(f)
	}
	switch {
	case whole < 1e8:
		return time.Time{}, true
	case whole < 1e11:
		return time.Unix(whole, 0).UTC(), true
	case whole < 1e14:
		return time.UnixMilli(whole).UTC(), true
	case whole < 1e17:
		return time.UnixMicro(whole).UTC(), true
	}
	return time.Unix(0, whole).UTC(), true
}
