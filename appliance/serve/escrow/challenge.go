package escrow

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
)

// ChallengeLife is how long a challenge may be answered.
const ChallengeLife = time.Hour

const (
	challengeFile   = "challenge.json"
	challengeFormat = 1
)

// Faults that a person must act on.
var (
	// ErrNoChallenge means that there is none, or that it has been answered.
	ErrNoChallenge = errors.New("no challenge is open")
	// ErrExpired means that the challenge is older than ChallengeLife.
	ErrExpired = errors.New("the challenge has expired")
	// ErrWrongAnswer means that an answer belongs to no open challenge.
	ErrWrongAnswer = errors.New("an answer fits none of the open challenges")
	// ErrReplaced means that the file has been replaced since the challenge.
	ErrReplaced = errors.New("the escrow file has been replaced since the challenge")
	// ErrUsedUp means that a file has no challenges left, or never had any.
	ErrUsedUp = errors.New("no challenges are left for this escrow file")
	// ErrUnknownFile means that the folder knows no such escrow file.
	ErrUnknownFile = errors.New("no such escrow file")
)

// Question asks for proof that one file has been opened.
type Question struct {
	File  string `json:"file"`
	Nonce string `json:"nonce"`
}

// Check refuses what is no question: it comes from another machine, and its file
// is opened.
func (q Question) Check() error {
	if err := checkFileName(q.File); err != nil {
		return err
	}
	if !isNonce(q.Nonce) {
		return fmt.Errorf("question about %s: %q is not a nonce of %d hex digits", q.File, q.Nonce, 2*nonceBytes)
	}
	return nil
}

// Challenge is what somebody with an opened escrow has to answer.
type Challenge struct {
	Expires   time.Time  `json:"expires"`
	Questions []Question `json:"questions"`
	// Spent names files of which nothing can be asked any more.
	Spent []string `json:"spent,omitempty"`
}

// openChallenge is the state file of a challenge.
type openChallenge struct {
	Format  int            `json:"format"`
	Expires time.Time      `json:"expires"`
	Open    []openQuestion `json:"open"`
}

type openQuestion struct {
	Question
	SealedSHA256 string `json:"sealed_sha256"`
	Key          string `json:"key,omitempty"`
	AnswerSHA256 string `json:"answer_sha256"`
}

// Folder is the folder with the escrow files and what is known of them.
type Folder struct {
	Dir string
	Now func() time.Time
	// KeyInForce gives the fingerprint of the master key that is in force; the
	// proof of another one is refused. May be nil.
	KeyInForce func() (string, error)

	write writer // replaced in the crash tests
}

func (f Folder) writer() writer {
	if f.write != nil {
		return f.write
	}
	return atomicfile.Write
}

// Ask opens a challenge for the named files, all of them without a name, in
// place of one that is open. Each nonce is asked once.
func (f Folder) Ask(names ...string) (Challenge, error) {
	checks, err := loadChecks(f.Dir)
	if err != nil {
		return Challenge{}, err
	}
	for _, n := range names {
		if _, ok := checks[n]; !ok {
			return Challenge{}, fmt.Errorf("%w: %q", ErrUnknownFile, n)
		}
	}
	ch := Challenge{Expires: f.Now().Add(ChallengeLife).UTC()}
	open := openChallenge{Format: challengeFormat, Expires: ch.Expires}
	for name, c := range checks {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		if len(c.Unused) == 0 {
			ch.Spent = append(ch.Spent, name)
			continue
		}
		next := c.Unused[0]
		c.Unused = c.Unused[1:]
		data, err := c.Encode()
		if err != nil {
			return Challenge{}, err
		}
		// Used before it is shown: never asked twice.
		if err := f.writer()(filepath.Join(f.Dir, c.Name()), data, 0o600); err != nil {
			return Challenge{}, err
		}
		q := Question{File: name, Nonce: next.Nonce}
		ch.Questions = append(ch.Questions, q)
		open.Open = append(open.Open, openQuestion{Question: q, SealedSHA256: c.SealedSHA256, Key: c.Key, AnswerSHA256: next.AnswerSHA256})
	}
	slices.Sort(ch.Spent)
	slices.SortFunc(ch.Questions, func(a, b Question) int { return strings.Compare(a.File, b.File) })
	if len(ch.Questions) == 0 {
		if len(ch.Spent) == 0 {
			return ch, fmt.Errorf("%w in %q", ErrUnknownFile, f.Dir)
		}
		return ch, fmt.Errorf("%w: %s", ErrUsedUp, strings.Join(ch.Spent, ", "))
	}
	return ch, f.store(open)
}

func (f Folder) store(o openChallenge) error {
	path := filepath.Join(f.Dir, challengeFile)
	if len(o.Open) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("close the challenge: %w", err)
		}
		return nil
	}
	data, err := statefile.Encode(o)
	if err != nil {
		return err
	}
	return f.writer()(path, data, 0o600)
}

// Confirm takes answers to the open challenge, as sha256sum prints them, and
// records the files that they prove. It returns these, also when another
// answer was wrong. An answer counts once.
func (f Folder) Confirm(answers []string) ([]string, error) {
	open, err := f.load()
	if err != nil {
		return nil, err
	}
	if !f.Now().Before(open.Expires) {
		return nil, fmt.Errorf("%w: at %s", ErrExpired, open.Expires.Format(time.RFC3339))
	}
	checks, err := loadChecks(f.Dir)
	if err != nil {
		return nil, err
	}
	proofs := map[string]Confirmed{}
	var faults []error
	for i, text := range answers {
		answer, ok := parseAnswer(text)
		n := -1
		if ok {
			n = open.match(answer)
		}
		if n < 0 {
			faults = append(faults, fmt.Errorf("%w: number %d", ErrWrongAnswer, i+1))
			continue
		}
		q := open.Open[n]
		open.Open = slices.Delete(open.Open, n, n+1)
		if err := f.current(q, checks[q.File]); err != nil {
			faults = append(faults, err)
			continue
		}
		proofs[q.File] = Confirmed{SealedSHA256: q.SealedSHA256, Key: q.Key, At: f.Now().UTC(), By: ByChallenge}
	}
	if len(proofs) == 0 {
		if len(faults) == 0 {
			faults = append(faults, fmt.Errorf("%w: none is given", ErrWrongAnswer))
		}
		return nil, errors.Join(faults...)
	}
	// The questions first: an answer never counts twice.
	if err := f.store(open); err != nil {
		return nil, err
	}
	if err := record(f.Dir, proofs, f.writer()); err != nil {
		return nil, err
	}
	var names []string
	for name := range proofs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, errors.Join(faults...)
}

// current refuses a proof about a file, or a master key, that is not in force
// any more.
func (f Folder) current(q openQuestion, c Checks) error {
	if c.SealedSHA256 != q.SealedSHA256 {
		return fmt.Errorf("%w: %s", ErrReplaced, q.File)
	}
	if q.Key == "" || f.KeyInForce == nil {
		return nil
	}
	key, err := f.KeyInForce()
	if err != nil {
		return fmt.Errorf("compare with the master key in force: %w", err)
	}
	if key != q.Key {
		return fmt.Errorf("%w: %s holds master key %s, in force is %s", ErrReplaced, q.File, q.Key, key)
	}
	return nil
}

func (f Folder) load() (openChallenge, error) {
	data, err := readSmall(filepath.Join(f.Dir, challengeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return openChallenge{}, ErrNoChallenge
	}
	if err != nil {
		return openChallenge{}, err
	}
	return parseChallenge(data)
}

func parseChallenge(data []byte) (openChallenge, error) {
	var o openChallenge
	if err := statefile.Decode(data, challengeFormat, &o); err != nil {
		return openChallenge{}, fmt.Errorf("open challenge: %w", err)
	}
	for _, q := range o.Open {
		if q.Check() != nil || !isSum(q.SealedSHA256) || !isSum(q.AnswerSHA256) {
			return openChallenge{}, errors.New("open challenge: it is damaged")
		}
	}
	return o, nil
}

// match finds the question that an answer belongs to, or gives -1. Every
// question is compared, in constant time.
func (o openChallenge) match(answer string) int {
	got, found := []byte(sum([]byte(answer))), -1
	for i, q := range o.Open {
		if subtle.ConstantTimeCompare(got, []byte(q.AnswerSHA256)) == 1 {
			found = i
		}
	}
	return found
}

// parseAnswer takes a line of sha256sum: 64 hex digits, then perhaps a name.
func parseAnswer(line string) (string, bool) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return "", false
	}
	a := strings.ToLower(f[0])
	return a, isSum(a)
}
