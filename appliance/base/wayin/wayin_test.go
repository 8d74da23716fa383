package wayin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

const (
	config = "ui = true\n"
	token  = "hvs.canary"
	otp    = "0123456789"
	share  = "canary-share"
)

// vault is generate-root as Vault has it, with a configuration file.
type vault struct {
	mu       sync.Mutex
	v1       bool // asks for no token, whatever its configuration says
	deaf     bool // its configuration is read at the start only
	lag      int  // how many questions are answered before a reload is through
	file     string
	open     bool // by the configuration that it has read
	pending  []bool
	begun    bool
	made     int
	failing  int // which of the following calls fails, from 1; 0 is none
	calls    int
	writes   int
	reloads  int
	shutWith int // HTTP status for a caller without a token
	patience time.Duration
}

var errPlanted = errors.New("planted")

func (v *vault) fails() error {
	v.calls++
	if v.calls == v.failing {
		return errPlanted
	}
	return nil
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.pending) > 0 {
		if v.lag--; v.lag < 0 {
			v.open, v.pending = v.pending[len(v.pending)-1], nil
		}
	}
	if !v.v1 && !v.open {
		w.WriteHeader(v.shutWith)
		reason := "permission denied"
		if v.shutWith == 400 {
			reason = "missing client token"
		}
		fmt.Fprintf(w, `{"errors":[%q]}`, reason)
		return
	}
	var body struct{ Key, Nonce string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch {
	case r.Method == http.MethodGet:
		fmt.Fprintf(w, `{"started":%v}`, v.begun)
	case r.Method == http.MethodDelete:
		v.begun = false
		w.WriteHeader(204)
	case strings.HasSuffix(r.URL.Path, "attempt"):
		v.begun = true
		fmt.Fprintf(w, `{"nonce":"n","otp":%q,"required":1}`, otp)
	case body.Key != share:
		w.WriteHeader(400)
		fmt.Fprint(w, `{"errors":["root generation aborted"]}`)
	default:
		raw := []byte(token)
		for i := range raw {
			raw[i] ^= otp[i]
		}
		v.begun = false
		v.made++
		fmt.Fprintf(w, `{"complete":true,"encoded_token":%q}`, base64.RawStdEncoding.EncodeToString(raw))
	}
}

func (v *vault) door(t *testing.T) Door {
	t.Helper()
	if v.patience == 0 {
		v.patience = time.Minute // what succeeds is not timed
	}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	c, err := vaultapi.New(vaultapi.Options{Address: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return Door{
		Vault: c, Patience: v.patience,
		Read: func() ([]byte, error) {
			if err := v.fails(); err != nil {
				return nil, err
			}
			return []byte(v.file), nil
		},
		Write: func(b []byte) error {
			if err := v.fails(); err != nil {
				return err
			}
			v.writes++
			v.file = string(b)
			return nil
		},
		Reload: func(context.Context) error {
			if err := v.fails(); err != nil {
				return err
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			v.reloads++
			if !v.deaf {
				v.pending = append(v.pending, strings.Contains(v.file, setting))
			}
			return nil
		},
	}
}

func TestGenerateRoot(t *testing.T) {
	for name, tt := range map[string]struct {
		v      *vault
		shares []string
		is     error // in the error; nil is a token
		says   string
		writes int
	}{
		"Vault 1.x":                  {v: &vault{v1: true}},
		"Vault 2.x":                  {v: &vault{}, writes: 2},
		"Vault 2.x, in other words":  {v: &vault{shutWith: 400}, writes: 2},
		"one that is slow to reload": {v: &vault{lag: 3}, writes: 2},
		"a line that was left":       {v: &vault{file: config + setting + mark + "\n"}, writes: 2},
		"a door that was left open":  {v: &vault{open: true, file: config + setting + mark + "\n"}, writes: 1},
		"one left open, a wrong key": {v: &vault{open: true, file: config + setting + mark + "\n"}, shares: []string{"canary-no"}, says: "root generation aborted", writes: 1},
		"no newline at the end":      {v: &vault{file: "ui = true"}, writes: 2},
		"a wrong key":                {v: &vault{}, shares: []string{"canary-no"}, says: "root generation aborted", writes: 2},
		"too few keys":               {v: &vault{}, shares: []string{}, is: vaultapi.ErrFewShares, writes: 2},
		"one that does not listen":   {v: &vault{deaf: true, patience: 100 * time.Millisecond}, is: ErrStaysShut, writes: 2},
	} {
		t.Run(name, func(t *testing.T) {
			v := tt.v
			if v.shutWith == 0 {
				v.shutWith = 403
			}
			if v.file == "" {
				v.file = config
			}
			if tt.shares == nil {
				tt.shares = []string{share}
			}
			got, err := v.door(t).GenerateRoot(t.Context(), tt.shares)
			if tt.is == nil && tt.says == "" {
				if err != nil || got != token {
					t.Errorf("a token of %d bytes, %v", len(got), err)
				}
			} else if got != "" || err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(fmt.Sprint(err), tt.says) || strings.Contains(fmt.Sprint(err), "canary") {
				t.Errorf("a token of %d bytes, %v", len(got), err)
			}
			if v.file != config || v.writes != tt.writes {
				t.Errorf("%d writes, and the file is\n%s", v.writes, v.file)
			}
			if v.open || v.begun {
				t.Errorf("open %v, an attempt under way %v", v.open, v.begun)
			}
		})
	}
}

// Whatever fails: either the file and Vault are as before, or the error says that the
// way in is open; and a token that was made is handed out.
func TestGenerateRootFails(t *testing.T) {
	for n := 1; ; n++ {
		v := &vault{file: config, shutWith: 403, failing: n}
		got, err := v.door(t).GenerateRoot(t.Context(), []string{share})
		if v.calls < n {
			if n < 6 {
				t.Fatalf("only %d calls", v.calls)
			}
			return
		}
		if !errors.Is(err, errPlanted) {
			t.Errorf("call %d fails: %v", n, err)
		}
		if (v.made > 0) != (got == token) {
			t.Errorf("call %d fails: %d tokens made, %d bytes handed out", n, v.made, len(got))
		}
		if left := v.open || v.file != config; left && !errors.Is(err, ErrLeftOpen) {
			t.Errorf("call %d fails: %v, and Vault is open: %v, with\n%s", n, err, v.open, v.file)
		}
	}
}

// A killed run's line is taken out, and somebody's own stays.
func TestClose(t *testing.T) {
	for name, tt := range map[string]struct {
		file, want string
		was        bool
	}{
		"nothing":                {config, config, false},
		"no newline":             {"ui = true", "ui = true", false},
		"ours":                   {config + setting + mark + "\n", config, true},
		"ours, twice, in front":  {setting + mark + "\n" + setting + mark + "\n" + config, config, true},
		"somebody's own":         {config + setting + "\n", config + setting + "\n", false},
		"somebody's own, beside": {config + setting + "\n" + setting + mark, config + setting + "\n", true},
		"an empty one":           {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			v := &vault{file: tt.file}
			d := v.door(t)
			was, err := Close(d.Read, d.Write)
			if err != nil || was != tt.was || v.file != tt.want || (v.writes > 0) != tt.was {
				t.Errorf("was %v, %v, %d writes, and the file is %q", was, err, v.writes, v.file)
			}
		})
	}
}
