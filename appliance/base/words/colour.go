package words

// Colours of a terminal, ECMA-48.
const (
	Bold   = "\x1b[1m"
	Dim    = "\x1b[2m"
	Red    = "\x1b[31m"
	Green  = "\x1b[32m"
	Yellow = "\x1b[33m"
	Reset  = "\x1b[0m"
)

// Paint is text in a colour, where colours are wanted. "" is none.
func Paint(wanted bool, colour, text string) string {
	if !wanted || colour == "" {
		return text
	}
	return colour + text + Reset
}
