package vaultapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// noted is a server that answers the same to everything, and what it was asked
// in the form "METHOD path?query body".
func noted(t *testing.T, status int, body string) (*Client, *[]string) {
	t.Helper()
	asked := &[]string{}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		in, _ := io.ReadAll(r.Body)
		*asked = append(*asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(in)))
		answers(status, body)(w, r)
	})
	return client(t, Options{Address: s.URL, Token: "t"}), asked
}

// no is a call that gives nothing but its error.
func no(err error) (any, error) { return nil, err }

// Each call asks what Vault's documentation says, and takes what it needs.
func TestCalls(t *testing.T) {
	type call = func(context.Context, *Client) (any, error)
	for name, c := range map[string]struct {
		call   call
		asks   string
		answer string // status 200; "" for 204
		want   any
		// lacking are answers that are of no use; each must be an error.
		lacking []string
	}{
		"leader": {
			call:   func(ctx context.Context, c *Client) (any, error) { return c.Leader(ctx) },
			asks:   "GET /v1/sys/leader",
			answer: `{"ha_enabled":true,"is_self":true,"leader_address":"https://a","raft_applied_index":12}`,
			want:   Leader{true, "https://a", 12}, lacking: []string{"", `{}`, `{"data":{"ha_enabled":true}}`, `{"ha_enabled":"yes"}`, `null`},
		},
		"mounts": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.Mounts(ctx) }, asks: "GET /v1/sys/mounts",
			answer: `{"data":{"secret/":{"type":"kv","options":{"version":"2"},"running_plugin_version":"v1"}}}`,
			want:   map[string]Mount{"secret/": {Type: "kv", Options: map[string]string{"version": "2"}, RunningVersion: "v1"}}, lacking: []string{"", `{}`, `{"data":{"secret/":{}}}`, `{"data":{"secret/":1}}`},
		},
		"auth methods": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.AuthMethods(ctx) }, asks: "GET /v1/sys/auth",
			answer: `{"data":{"token/":{"type":"token","accessor":"x"}}}`, want: map[string]Mount{"token/": {Type: "token", Accessor: "x"}}, lacking: []string{`{}`},
		},
		"audit devices": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.AuditDevices(ctx) }, asks: "GET /v1/sys/audit",
			answer: `{"data":{}}`, want: map[string]Mount{}, lacking: []string{`{}`, ""},
		},
		"plugin versions": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.PluginVersions(ctx, "p") }, asks: "GET /v1/sys/plugins/catalog",
			answer: `{"data":{"detailed":[{"name":"p","type":"secret","version":"v1"},{"name":"p","type":"auth","version":"v2"},{"name":"q","type":"secret","version":"v3"},{"name":"p","type":"secret","version":"v4"}]}}`,
			want:   []string{"v1", "v4"}, lacking: []string{`{}`, `{"data":{}}`, `{"data":{"detailed":[]}}`, `{"data":{"detailed":{}}}`},
		},
		"policies": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.Policies(ctx) }, asks: "GET /v1/sys/policies/acl?list=true",
			answer: `{"data":{"keys":["default","root"]}}`, want: []string{"default", "root"}, lacking: []string{`{}`, `{"data":{"keys":[]}}`},
		},
		"a policy": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.Policy(ctx, "p") }, asks: "GET /v1/sys/policies/acl/p",
			answer: `{"data":{"name":"p","policy":"path \"x\" {}"}}`, want: `path "x" {}`, lacking: []string{`{}`, `{"data":{"name":"p"}}`, `{"data":{"policy":1}}`},
		},
		"put a policy": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.PutPolicy(ctx, "p", "text")) },
			asks: `PUT /v1/sys/policies/acl/p {"policy":"text"}`,
		},
		"tune a plugin": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.TunePlugin(ctx, "apikeys/", "v2")) },
			asks: `PUT /v1/sys/mounts/apikeys/tune {"plugin_version":"v2"}`,
		},
		"reload a mount": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.ReloadMount(ctx, "apikeys")) },
			asks: `PUT /v1/sys/plugins/reload/backend {"mounts":"apikeys/"}`,
		},
		"register a plugin": {
			call: func(ctx context.Context, c *Client) (any, error) {
				return no(c.RegisterPlugin(ctx, Plugin{"p", "p-v1", "v1", "abc"}))
			},
			asks: `PUT /v1/sys/plugins/catalog/secret/p {"command":"p-v1","sha256":"abc","type":"secret","version":"v1"}`,
		},
		"deregister a plugin": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.DeregisterPlugin(ctx, "p", "v1")) },
			asks: `DELETE /v1/sys/plugins/catalog/secret/p?version=v1`,
		},
		"mount a plugin": {
			call: func(ctx context.Context, c *Client) (any, error) {
				return no(c.MountPlugin(ctx, "apikeys", Plugin{Name: "p", Version: "v1"}))
			},
			asks: `PUT /v1/sys/mounts/apikeys {"config":{"allowed_response_headers":["ETag"],"passthrough_request_headers":["If-None-Match"],"plugin_version":"v1"},"type":"p"}`,
		},
		"enable audit": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.EnableFileAudit(ctx, "file", "/log")) },
			asks: `PUT /v1/sys/audit/file {"options":{"file_path":"/log","mode":"0600"},"type":"file"}`,
		},
		"who am I": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.LookupSelf(ctx) }, asks: "GET /v1/auth/token/lookup-self",
			answer: `{"data":{"id":"t"}}`, want: Data{"id": "t"}, lacking: []string{"", `{}`},
		},
		"another token": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.LookupAccessor(ctx, "a") },
			asks: `PUT /v1/auth/token/lookup-accessor {"accessor":"a"}`, answer: `{"data":{"ttl":"x"}}`, want: Data{"ttl": "x"},
		},
		"end another token": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.RevokeAccessor(ctx, "a")) },
			asks: `PUT /v1/auth/token/revoke-accessor {"accessor":"a"}`,
		},
		"end my token": {
			call: func(ctx context.Context, c *Client) (any, error) { return no(c.RevokeSelf(ctx)) },
			asks: `PUT /v1/auth/token/revoke-self`,
		},
		"capabilities": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.Capabilities(ctx, "a/b") },
			asks: `PUT /v1/sys/capabilities-self {"paths":["a/b"]}`, answer: `{"data":{"capabilities":["root"],"a/b":["read","list"]}}`, want: []string{"read", "list"},
			lacking: []string{"", `{}`, `{"data":{"capabilities":["root"]}}`},
		},
		"read into": {
			call: func(ctx context.Context, c *Client) (any, error) {
				var v struct{ A []int }
				err := c.ReadInto(ctx, "a/b", map[string][]string{"q": {"1"}}, &v)
				return v.A, err
			},
			asks: "GET /v1/a/b?q=1", answer: `{"data":{"a":[1,2]}}`, want: []int{1, 2}, lacking: []string{"", `{"data":{"a":["canary"]}}`},
		},
		"a lease": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.ReadLease(ctx, "database/creds/x") },
			asks: "GET /v1/database/creds/x", answer: `{"lease_id":"l","lease_duration":90,"data":{"username":"u"}}`,
			want: Lease{"l", 90 * time.Second, Data{"username": "u"}}, lacking: []string{"", `{"data":{"username":"canary"}}`, `{"lease_id":"l"}`},
		},
		"unwrap": {
			call: func(ctx context.Context, c *Client) (any, error) { return c.Unwrap(ctx, "w") }, asks: "PUT /v1/sys/wrapping/unwrap",
			answer: `{"data":{"secret_id":"s"}}`, want: Data{"secret_id": "s"}, lacking: []string{"", `{}`},
		},
		"a list with more": {
			call: func(ctx context.Context, c *Client) (any, error) {
				names, info, err := c.ListInfo(ctx, "a")
				return fmt.Sprint(names, info), err
			},
			asks: "GET /v1/a?list=true", answer: `{"data":{"keys":["x"],"key_info":{"x":{"n":"y"}}}}`, want: "[x] map[x:map[n:y]]", lacking: []string{`{"data":{"keys":["x"],"key_info":["canary"]}}`},
		},
		"metrics": {
			call: func(ctx context.Context, c *Client) (any, error) {
				b, err := c.Raw(ctx, "sys/metrics", nil)
				return string(b), err
			},
			asks: "GET /v1/sys/metrics", answer: `# HELP`, want: `# HELP`, lacking: []string{""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			status := http.StatusOK
			if c.answer == "" {
				status = http.StatusNoContent
			}
			v, asked := noted(t, status, c.answer)
			got, err := c.call(t.Context(), v)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %#v, %v", got, err)
			}
			if len(*asked) != 1 || (*asked)[0] != c.asks {
				t.Errorf("asked %q, want %q", *asked, c.asks)
			}
			for _, answer := range c.lacking {
				status := http.StatusOK
				if answer == "" {
					status = http.StatusNoContent
				}
				v, _ := noted(t, status, answer)
				if got, err := c.call(t.Context(), v); err == nil || strings.Contains(err.Error(), "canary") {
					t.Errorf("%d %s gives %v, %v", status, answer, got, err)
				}
			}
			v, _ = noted(t, http.StatusForbidden, `{"errors":["permission denied"]}`)
			if got, err := c.call(t.Context(), v); !IsDenied(err) || IsUncertain(err) {
				t.Errorf("denied: %v, %v", got, err)
			}
		})
	}
}

// A login takes effect only with a token, and then for whatever comes later.
func TestLogin(t *testing.T) {
	for name, login := range map[string]struct {
		call func(*Client) error
		asks string
	}{
		"AppRole":  {func(c *Client) error { return c.LoginAppRole(t.Context(), "r", "s") }, `PUT /v1/auth/approle/login {"role_id":"r","secret_id":"s"}`},
		"userpass": {func(c *Client) error { return c.LoginUserpass(t.Context(), "u", "p") }, `PUT /v1/auth/userpass/login/u {"password":"p"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c, asked := noted(t, 200, `{"auth":{"client_token":"new"}}`)
			if err := login.call(c); err != nil || c.Token() != "new" || (*asked)[0] != login.asks {
				t.Errorf("token %q after %q: %v", c.Token(), *asked, err)
			}
			for _, answer := range []string{`{}`, `{"auth":{}}`, `{"data":{"client_token":"x"}}`} {
				c, _ := noted(t, 200, answer)
				if err := login.call(c); err == nil || c.Token() != "t" {
					t.Errorf("%s: token %q, %v", answer, c.Token(), err)
				}
			}
		})
	}
	c, _ := noted(t, 200, `{}`)
	other := c.As("other")
	c.SetToken("mine")
	if c.Token() != "mine" || other.Token() != "other" || other.Address() != c.Address() {
		t.Errorf("tokens %q and %q", c.Token(), other.Token())
	}
}

// A token that has ended is told from one that may not be asked about.
func TestAccessorGone(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		gone   bool
	}{
		"of older versions": {403, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`, true},
		"of newer":          {404, `{"errors":["invalid accessor"]}`, true},
		"denied":            {403, `{"errors":["permission denied"]}`, false},
		"sealed":            {503, `{"errors":["Vault is sealed"]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := noted(t, tt.status, tt.body)
			if _, err := c.LookupAccessor(t.Context(), "a"); errors.Is(err, ErrTokenGone) != tt.gone || Status(err) != tt.status {
				t.Errorf("looked up: %v", err)
			}
			if err := c.RevokeAccessor(t.Context(), "a"); errors.Is(err, ErrTokenGone) != tt.gone || err == nil {
				t.Errorf("revoked: %v", err)
			}
		})
	}
}

// What cannot be meant is not sent.
func TestNotSent(t *testing.T) {
	c, asked := noted(t, 200, `{"data":{}}`)
	for name, call := range map[string]func() error{
		"wrap for no time":     func() error { _, err := c.Wrap(t.Context(), "a", nil, 0); return err },
		"unwrap without token": func() error { _, err := c.Unwrap(t.Context(), ""); return err },
		"what is no JSON": func() error {
			_, err := c.Write(t.Context(), "a", map[string]any{"f": func() {}})
			return err
		},
	} {
		if err := call(); err == nil || IsUncertain(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(*asked) != 0 {
		t.Errorf("asked %q", *asked)
	}
	if err := c.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	gone, _ := noted(t, 404, `{"errors":[]}`)
	if err := gone.Delete(t.Context(), "a"); err != nil {
		t.Errorf("what is gone already: %v", err)
	}
}

// Init gives its secrets once, and shows them to nobody who prints the result.
func TestInit(t *testing.T) {
	for name, tt := range map[string]struct {
		status, made string
		is           func(error) bool
	}{
		"new":             {`{"initialized":false}`, `{"recovery_keys_base64":["canary1","canary2"],"root_token":"canary3"}`, isNil},
		"before":          {`{"initialized":true}`, `{}`, func(err error) bool { return errors.Is(err, ErrInitialized) }},
		"another server":  {`{}`, `{}`, isNoData},
		"too few keys":    {`{"initialized":false}`, `{"recovery_keys_base64":["canary1"],"root_token":"canary3"}`, isNoData},
		"no root token":   {`{"initialized":false}`, `{"recovery_keys_base64":["canary1","canary2"]}`, isNoData},
		"half an answer":  {`{"initialized":false}`, `{"recovery_keys_base64":["canary1`, IsUncertain},
		"another's hello": {`hello`, ``, func(err error) bool { return errors.Is(err, ErrNotVault) && !IsUncertain(err) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					answers(200, tt.status)(w, r)
					return
				}
				in, _ := io.ReadAll(r.Body)
				if string(in) != `{"recovery_shares":2,"recovery_threshold":1}` {
					t.Errorf("asked with %s", in)
				}
				answers(200, tt.made)(w, r)
			})
			got, err := client(t, Options{Address: s.URL}).Init(t.Context(), InitRequest{2, 1})
			if !tt.is(err) || strings.Contains(fmt.Sprint(err), "canary") {
				t.Fatalf("error: %v", err)
			}
			if want := map[bool]string{true: "[canary1 canary2] canary3", false: "[] "}[err == nil]; fmt.Sprint(got.RecoveryKeys, " ", got.RootToken) != want {
				t.Errorf("it gives %d keys", len(got.RecoveryKeys))
			}
			if shown := fmt.Sprintf("%v %+v %#v %s", got, got, got, got); strings.Contains(shown, "canary") {
				t.Errorf("printing it shows %s", shown)
			}
		})
	}
}

func TestSHA256File(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, B.1
	if got, err := SHA256File(file); got != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{file + "none", filepath.Dir(file)} {
		if got, err := SHA256File(bad); err == nil {
			t.Errorf("%s has the sum %s", bad, got)
		}
	}
}

// A snapshot is whole or an error; one that is being restored is sent once.
func TestSnapshots(t *testing.T) {
	c, asked := noted(t, 200, "the archive")
	var b strings.Builder
	if err := c.Snapshot(t.Context(), &b); err != nil || b.String() != "the archive" {
		t.Errorf("%q, %v", b.String(), err)
	}
	for _, force := range []bool{false, true} {
		if err := c.RestoreSnapshot(t.Context(), strings.NewReader("the archive"), force); err != nil {
			t.Error(err)
		}
	}
	want := []string{"GET /v1/sys/storage/raft/snapshot", "POST /v1/sys/storage/raft/snapshot the archive", "POST /v1/sys/storage/raft/snapshot-force the archive"}
	if !reflect.DeepEqual(*asked, want) {
		t.Errorf("asked %q", *asked)
	}
	for name, tt := range map[string]struct {
		h         http.HandlerFunc
		uncertain bool
	}{
		"denied":         {answers(403, `{"errors":["permission denied"]}`), false},
		"failed":         {answers(500, `{"errors":["internal error"]}`), true},
		"half an answer": {halfAnswer, true},
		"no answer":      {hangUp, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tt.h)
			c := client(t, Options{Address: s.URL, Token: "t"})
			if err := c.Snapshot(t.Context(), io.Discard); err == nil || IsUncertain(err) {
				t.Errorf("took one: %v", err)
			}
			before := len(s.requests())
			if err := c.RestoreSnapshot(t.Context(), strings.NewReader("x"), true); err == nil || IsUncertain(err) != tt.uncertain {
				t.Errorf("restored one: %v", err)
			}
			if n := len(s.requests()) - before; n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}
