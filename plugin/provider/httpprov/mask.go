package httpprov

import (
	"slices"
	"strings"
	"unicode"

	"strongroom.example/plugin/provider"
)

// masker hides secrets in the few words of an answer that a person needs to
// see ("token limit reached"). It knows the secrets that were sent, and it
// hides whatever looks like another one.
type masker struct{ secrets []string }

const (
	maxMessage = 200 // bytes shown of a service's message
	suspicious = 12  // a run this long with a digit in it looks like a key
	certain    = 24  // a run this long does in any case
)

func (m *masker) add(values ...string) {
	for _, v := range values {
		if len(v) >= 4 && !slices.Contains(m.secrets, v) {
			m.secrets = append(m.secrets, v)
		}
	}
}

// message is text, masked, on one line and short.
func (m *masker) message(text string) string {
	// Before anything is cut off, or half a secret could stay. The longest
	// first: one secret may be part of another.
	secrets := slices.Clone(m.secrets)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, provider.Masked)
	}
	// Once more when blanks are made equal: that may bring one together.
	text = oneLine(text)
	for _, s := range secrets {
		if s = oneLine(s); s != "" {
			text = strings.ReplaceAll(text, s, provider.Masked)
		}
	}
	text = maskRuns(text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// oneLine replaces what is not printable, and makes all blanks one space.
func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
}

// maskRuns hides runs of the characters that keys are made of.
func maskRuns(text string) string {
	var out, run strings.Builder
	digit := false
	flush := func() {
		s := run.String()
		if len(s) >= certain || len(s) >= suspicious && digit {
			s = provider.Masked
		}
		out.WriteString(s)
		run.Reset()
		digit = false
	}
	for _, r := range text {
		if r < 0x80 && (r == '_' || r == '-' || r == '+' || r == '/' || r == '=' || r == '.' || r == '~' || r == '%' ||
			unicode.IsLetter(r) || unicode.IsDigit(r)) {
			run.WriteRune(r)
			digit = digit || unicode.IsDigit(r)
			continue
		}
		flush()
		out.WriteRune(r)
	}
	flush()
	return out.String()
}
