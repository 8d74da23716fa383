package httpprov

import (
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
)

// nameForm is what a service lets a key be called. The engine's names are
// sr-MOUNT-KEY-INSTALLATION-VERSION-ATTEMPT-LABEL, up to 64 bytes of [a-z0-9-].
// Where that does not fit they are written in another way that can be read back
// but for the label, so that a key stays unique and is found by its name: nothing
// that tells whose it is is cut off.
//
// The zero value changes nothing.
type nameForm struct {
	max    int  // bytes
	joiner byte // in place of -; 0: letters and digits alone, so names are packed
	upper  bool // capitals
	bare   bool // without the label
}

// Packed names are a letter and digits to the base 36: mint for the engine's
// own, whose parts make one number, and other for any other.
const (
	mint      = 's'
	other     = 'x'
	base      = 36
	minPacked = 32
	maxPacked = 40
)

// engineName is lifecycle.MintName's text, taken apart. A test holds it to
// that. Its label is for people, and packed names have no place for it.
var engineName = regexp.MustCompile(`^sr-([0-9a-f]{8})-([0-9a-f]{12})-([a-z0-9]{1,8})-([1-9][0-9]{0,8})-([0-9a-f]{6})(-[a-z0-9-]+)?$`)

func readNameForm(m *fields.Map) nameForm {
	if m == nil {
		return nameForm{}
	}
	f := nameForm{max: m.Int("max_length", provider.MaxNameBytes, minPacked, 1000), joiner: '-'}
	switch m.OneOf("characters", "dash", "dash", "underscore", "alphanumeric") {
	case "underscore":
		f.joiner = '_'
	case "alphanumeric":
		f.joiner = 0
	}
	if f.max < provider.MaxNameBytes {
		f.joiner = 0
	}
	f.upper = m.OneOf("case", "lower", "lower", "upper") == "upper"
	f.bare = !m.Bool("label", true)
	return f
}

// packs tells that names are packed, so that the beginning of a name does not
// become the beginning of another.
func (f nameForm) packs() bool { return f.max > 0 && f.joiner == 0 }

// encode gives the name under which the service knows the key.
func (f nameForm) encode(name string) (string, error) {
	if f.max == 0 {
		return name, nil
	}
	if parts := engineName.FindStringSubmatch(name); parts != nil && f.bare {
		name = strings.TrimSuffix(name, parts[6])
	}
	out := name
	if f.packs() {
		var err error
		if out, err = f.pack(name); err != nil {
			return "", err
		}
	} else if f.joiner != '-' {
		if strings.IndexByte(name, f.joiner) >= 0 {
			return "", fmt.Errorf("the name %q holds %q, by which its parts are to be joined", name, f.joiner)
		}
		out = strings.ReplaceAll(name, "-", string(f.joiner))
	}
	if f.upper {
		if out != strings.ToLower(out) {
			return "", fmt.Errorf("the name %q has capitals already", name)
		}
		out = strings.ToUpper(out)
	}
	if len(out) > f.max {
		return "", fmt.Errorf("the name %q has %d bytes as %q, and the service takes %d", name, len(out), out, f.max)
	}
	return out, nil
}

// prefix is the beginning of the names that begin with p, where names are not
// packed.
func (f nameForm) prefix(p string) string {
	if f.max > 0 && f.joiner != 0 {
		p = strings.ReplaceAll(p, "-", string(f.joiner))
	}
	if f.upper {
		p = strings.ToUpper(p)
	}
	return p
}

// decode is the engine's name of what the service shows. What encode cannot
// have made is somebody else's, and stays as it is.
func (f nameForm) decode(shown string) string {
	if f.max == 0 {
		return shown
	}
	name := shown
	if f.upper {
		name = strings.ToLower(shown)
	}
	if f.packs() {
		name = f.unpack(name)
	} else if f.joiner != '-' {
		name = strings.ReplaceAll(name, string(f.joiner), "-")
	}
	// A service that ignores capitals may show others than it was given.
	if again, err := f.encode(name); err != nil || again != shown && !(f.upper && strings.EqualFold(again, shown)) {
		return shown
	}
	return name
}

func (f nameForm) digits() int { return min(f.max, maxPacked) - 1 }

var (
	installations = new(big.Int).Exp(big.NewInt(base+1), big.NewInt(8), nil)
	fixedParts    = new(big.Int).Lsh(big.NewInt(1), (8+12+6)*4)
)

// pack makes the parts one number: version, installation, and what is of fixed
// length, to the base 36.
func (f nameForm) pack(name string) (string, error) {
	parts := engineName.FindStringSubmatch(name)
	if parts == nil {
		n := new(big.Int).SetBytes(append([]byte{1}, name...))
		return string(other) + n.Text(base), nil
	}
	hexadecimal, _ := new(big.Int).SetString(parts[1]+parts[2]+parts[5], 16)
	version, _ := new(big.Int).SetString(parts[4], 10)
	n := version.Mul(version, installations)
	n.Add(n, installation(parts[3]))
	n.Mul(n, fixedParts)
	n.Add(n, hexadecimal)
	text := n.Text(base)
	if len(text) > f.digits() {
		return "", fmt.Errorf("the name %q is too long for the %d letters and digits that the service takes", name, f.max)
	}
	return string(mint) + strings.Repeat("0", f.digits()-len(text)) + text, nil
}

func (f nameForm) unpack(text string) string {
	if len(text) < 2 || text[0] != mint && text[0] != other {
		return text
	}
	n, ok := new(big.Int).SetString(text[1:], base)
	if !ok || n.Sign() < 0 {
		return text
	}
	if text[0] == other {
		raw := n.Bytes()
		if len(raw) < 2 || raw[0] != 1 {
			return text
		}
		return string(raw[1:])
	}
	hexadecimal, place := new(big.Int), new(big.Int)
	n.DivMod(n, fixedParts, hexadecimal)
	n.DivMod(n, installations, place)
	h := fmt.Sprintf("%026x", hexadecimal)
	if !n.IsInt64() {
		return text
	}
	return strings.Join([]string{"sr", h[:8], h[8:20], installationText(place), strconv.FormatInt(n.Int64(), 10), h[20:]}, "-")
}

// installation is a tag of 1 to 8 letters and digits as a number: digits to the
// base 37, of which 0 stands for none.
func installation(tag string) *big.Int {
	n := new(big.Int)
	for i := range len(tag) {
		digit, _ := strconv.ParseInt(tag[i:i+1], base, 64)
		n.Mul(n, big.NewInt(base+1))
		n.Add(n, big.NewInt(digit+1))
	}
	return n
}

func installationText(n *big.Int) string {
	var out []byte
	for digit := new(big.Int); n.Sign() > 0; {
		n.DivMod(n, big.NewInt(base+1), digit)
		if digit.Sign() == 0 {
			return "" // no tag looks like that: decode sees that it is not ours
		}
		out = append([]byte(strconv.FormatInt(digit.Int64()-1, base)), out...)
	}
	return string(out)
}
