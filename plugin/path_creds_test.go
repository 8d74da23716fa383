package apikeys

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestGeneratedKeyFromCreationToVerification(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("demo/production/billing", map[string]any{"custom_metadata": map[string]any{"team": "data"}})
	first := w.read("creds/demo/production/billing", nil)
	if first["version"] != 1 || first["state"] != "current" || first["key"] == "" {
		t.Fatalf("unexpected first version: %v", first)
	}
	if got, want := first["cache_ttl"], int64(7*24*3600); got != want {
		t.Errorf("cache_ttl is %v, want %v", got, want)
	}
	if got, want := first["rotation_period"], int64(90*24*3600); got != want {
		t.Errorf("rotation_period is %v, want %v", got, want)
	}
	w.clock.advance(time.Hour)
	if got := w.write("rotate/demo/production/billing", nil).Data["version"]; got != 2 {
		t.Fatalf("rotate gave version %v", got)
	}
	second := w.read("creds/demo/production/billing", nil)
	if second["key"] == first["key"] || second["version"] != 2 || second["etag"] == first["etag"] {
		t.Errorf("the key has not changed: %v", second["version"])
	}
	old := w.write("verify/demo/production/billing", map[string]any{"key": first["key"]}).Data
	if old["valid"] != true || old["state"] != "grace" || old["version"] != 1 {
		t.Errorf("the old key in grace: %v", old)
	}
	if got := w.write("verify/demo/production/billing", map[string]any{"key": "x" + first["key"].(string)}).Data; got["valid"] != false || len(got) != 1 {
		t.Errorf("a wrong key: %v", got)
	}
	w.pass(7*24*time.Hour + time.Second)
	if got := w.write("verify/demo/production/billing", map[string]any{"key": first["key"]}).Data["valid"]; got != false {
		t.Error("the old key is valid after its grace period")
	}
	states := w.read("versions/demo/production/billing", nil)["versions"].(map[string]any)
	if got := states["1"].(map[string]any)["state"]; got != "revoked" {
		t.Errorf("version 1 is %v", got)
	}
}

func TestConditionalReads(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("a/b", nil)
	first := w.read("creds/a/b", nil)
	etag := first["etag"].(string)
	cases := map[string]struct {
		data    map[string]any
		headers map[string][]string
		status  int
	}{
		"etag":               {nil, map[string][]string{"If-None-Match": {etag}}, 304},
		"weak etag in list":  {nil, map[string][]string{"If-None-Match": {`"other", W/` + etag}}, 304},
		"other etag":         {nil, map[string][]string{"If-None-Match": {`"other"`}}, 200},
		"if_version":         {map[string]any{"if_version": 1}, nil, 304},
		"if_version, other":  {map[string]any{"if_version": 2}, nil, 200},
		"explicit version":   {map[string]any{"version": 1}, nil, 200},
		"nothing to compare": {nil, nil, 200},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			resp, err := w.doWith(logical.ReadOperation, "creds/a/b", c.data, c.headers)
			if err != nil {
				t.Fatal(err)
			}
			status := 200
			if s, ok := resp.Data[logical.HTTPStatusCode]; ok {
				status = s.(int)
			}
			if status != c.status {
				t.Fatalf("status %d, want %d", status, c.status)
			}
			if got := resp.Headers["ETag"]; len(got) != 1 || got[0] != etag {
				t.Errorf("ETag header %v, want %s", got, etag)
			}
			if status == 304 && (resp.Data["key"] != nil || len(resp.Data[logical.HTTPRawBody].([]byte)) != 0) {
				t.Error("a 304 holds a body")
			}
		})
	}
}
