package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
)

// Network is what can be seen of the network, noted down by a unit that may see
// it and nothing else, for one that may see everything else and has no network.
type Network struct {
	Format  int                  `json:"format"`
	At      time.Time            `json:"at"`
	Domain  string               `json:"domain"`
	Tables  map[string]noted     `json:"tables"` // of /proc/net
	Ruleset noted                `json:"ruleset"`
	Hellos  map[string]helloNote `json:"hellos"`  // by the versions offered
	Answers map[string]getNote   `json:"answers"` // by path
}

// noted is a text, or why there is none.
type noted struct {
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
	// Missing says that the error is fs.ErrNotExist.
	Missing bool `json:"missing,omitempty"`
}

type helloNote struct {
	Version uint16 `json:"version,omitempty"`
	Suite   uint16 `json:"suite,omitempty"`
	Error   string `json:"error,omitempty"`
	// Refused says that the error is errVersions.
	Refused bool `json:"refused,omitempty"`
}

type getNote struct {
	Status int    `json:"status,omitempty"`
	HSTS   string `json:"hsts,omitempty"`
	Body   string `json:"body,omitempty"`
	Error  string `json:"error,omitempty"`
}

const networkFormat = 1

// maxBody is how much of an answer's body is noted, in bytes.
const maxBody = 2 << 10

// netTables are the kernel's tables of sockets, below /proc/net.
func netTables() []string { return []string{"tcp", "tcp6", "udp", "udp6"} }

// rulesetCommand prints the firewall's rules, without what is in the sets: that may be
// very much.
func rulesetCommand() []string { return []string{"nft", "-j", "-t", "list", "ruleset"} }

// Survey asks everything about the network that the checks ask.
func Survey(ctx context.Context, m Machine, f Front, domain string) Network {
	n := Network{
		Format: networkFormat, At: m.Now().UTC(), Domain: domain,
		Tables: map[string]noted{}, Hellos: map[string]helloNote{}, Answers: map[string]getNote{},
	}
	for _, t := range netTables() {
		n.Tables[t] = note(m.ReadFile(netDir + t))
	}
	n.Ruleset = note(m.Run(ctx, rulesetCommand()...))
	if domain == "" {
		return n
	}
	for _, versions := range []func() (uint16, uint16){oldTLS, newTLS} {
		lowest, highest := versions()
		state, err := f.Hello(ctx, domain, lowest, highest)
		h := helloNote{Version: state.Version, Suite: state.CipherSuite}
		if err != nil {
			h = helloNote{Error: plain(err), Refused: errors.Is(err, errVersions)}
		}
		n.Hellos[helloKey(lowest, highest)] = h
	}
	for _, p := range append([]string{healthPath}, closedPaths()...) {
		a, err := f.Get(ctx, domain, p)
		g := getNote{Status: a.Status, HSTS: a.Header.Get(hstsHeader), Body: a.Body[:min(len(a.Body), maxBody)]}
		if err != nil {
			g = getNote{Error: plain(err)}
		}
		n.Answers[p] = g
	}
	return n
}

func note(b []byte, err error) noted {
	if err != nil {
		return noted{Error: plain(err), Missing: errors.Is(err, fs.ErrNotExist)}
	}
	return noted{Text: string(b)}
}

func (n noted) recall() ([]byte, error) {
	switch {
	case n.Missing:
		return nil, fs.ErrNotExist
	case n.Error != "":
		return nil, errors.New(n.Error)
	}
	return []byte(n.Text), nil
}

func helloKey(lowest, highest uint16) string {
	return tls.VersionName(lowest) + " to " + tls.VersionName(highest)
}

// Save writes n to a file.
func (n Network) Save(path string) error {
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode what was seen of the network: %w", err)
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// maxSurveyAge is how old a survey may be: it is made right before it is read.
const maxSurveyAge = 10 * time.Minute

// Surveyed is a machine and a front whose network is what n tells, and
// everything else m's.
func Surveyed(m Machine, data []byte) (Machine, Front, error) {
	var n Network
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, nil, fmt.Errorf("what was seen of the network: %w", err)
	}
	if n.Format != networkFormat {
		return nil, nil, fmt.Errorf("what was seen of the network: format %d, this program reads %d", n.Format, networkFormat)
	}
	if age := m.Now().Sub(n.At); age > maxSurveyAge || age < -time.Minute {
		return nil, nil, fmt.Errorf("what was seen of the network is %v old", age.Round(time.Second))
	}
	return surveyed{m, n}, surveyed{m, n}, nil
}

// Unsurveyed is a machine and a front of whose network nothing can be told, for
// the reason why, and everything else m's.
func Unsurveyed(m Machine, why error) (Machine, Front) {
	s := surveyed{m, Network{Ruleset: noted{Error: plain(fmt.Errorf("%w: %w", errNotSurveyed, why))}}}
	return s, s
}

type surveyed struct {
	Machine
	n Network
}

var (
	_ Machine = surveyed{}
	_ Front   = surveyed{}
)

var errNotSurveyed = errors.New("not among what was seen of the network")

// ReadFile implements Machine.
func (s surveyed) ReadFile(path string) ([]byte, error) {
	table, ok := strings.CutPrefix(path, netDir)
	if !ok {
		return s.Machine.ReadFile(path)
	}
	t, ok := s.n.Tables[table]
	if !ok {
		return nil, errNotSurveyed
	}
	return t.recall()
}

// Run implements Machine.
func (s surveyed) Run(ctx context.Context, args ...string) ([]byte, error) {
	if args[0] == rulesetCommand()[0] {
		return s.n.Ruleset.recall()
	}
	return s.Machine.Run(ctx, args...)
}

// Stream implements Machine.
func (s surveyed) Stream(ctx context.Context, to io.Writer, args ...string) error {
	if args[0] != rulesetCommand()[0] {
		return s.Machine.Stream(ctx, to, args...)
	}
	out, err := s.n.Ruleset.recall()
	if err == nil {
		_, err = to.Write(out)
	}
	return err
}

// Hello implements Front.
func (s surveyed) Hello(_ context.Context, name string, lowest, highest uint16) (tls.ConnectionState, error) {
	h, ok := s.n.Hellos[helloKey(lowest, highest)]
	switch {
	case !ok || name != s.n.Domain:
		return tls.ConnectionState{}, errNotSurveyed
	case h.Refused:
		return tls.ConnectionState{}, errVersions
	case h.Error != "":
		return tls.ConnectionState{}, errors.New(h.Error)
	}
	return tls.ConnectionState{Version: h.Version, CipherSuite: h.Suite}, nil
}

// Get implements Front.
func (s surveyed) Get(_ context.Context, name, path string) (Answer, error) {
	g, ok := s.n.Answers[path]
	switch {
	case !ok || name != s.n.Domain:
		return Answer{}, errNotSurveyed
	case g.Error != "":
		return Answer{}, errors.New(g.Error)
	}
	return Answer{g.Status, http.Header{hstsHeader: {g.HSTS}}, g.Body}, nil
}
