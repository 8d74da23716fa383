package awsiam

import (
	"errors"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

var params = map[string]any{"user_name": userOfTests}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{
		New:    func(t *testing.T) (provider.Provider, conformance.Service) { return start(t) },
		Params: params,
		BadParams: map[string]map[string]any{
			"no user":  {},
			"bad user": {"user_name": "a/b"},
			"number":   {"user_name": 7},
		},
	})
}

func TestCodes(t *testing.T) {
	for _, tc := range []struct {
		status     int
		code       string
		create     provider.Kind // of create
		kind       provider.Kind // of list
		retryAfter string
	}{
		{400, "Throttling", provider.KindRateLimited, provider.KindRateLimited, "3"},
		{400, "RequestLimitExceeded", provider.KindRateLimited, provider.KindRateLimited, ""},
		{503, "ServiceUnavailable", provider.KindUncertain, provider.KindTransient, ""},
		{500, "ServiceFailure", provider.KindUncertain, provider.KindTransient, ""},
		{500, "InternalFailure", provider.KindUncertain, provider.KindTransient, ""},
		{403, "AccessDenied", provider.KindForbidden, provider.KindForbidden, ""},
		{403, "SignatureDoesNotMatch", provider.KindUnauthorized, provider.KindUnauthorized, ""},
		{400, "ExpiredToken", provider.KindExpired, provider.KindExpired, ""},
		{404, "NoSuchEntity", provider.KindNotFound, provider.KindNotFound, ""},
		{409, "LimitExceeded", provider.KindLimit, provider.KindLimit, ""},
		{409, "EntityTemporarilyUnmodifiable", provider.KindTransient, provider.KindTransient, ""},
		{400, "InvalidInput", provider.KindRejected, provider.KindRejected, ""},
		{400, "canary odd code!", provider.KindRejected, provider.KindRejected, ""},
		{404, "WhoKnows", provider.KindNotFound, provider.KindNotFound, ""},
		{408, "RequestTimeout", provider.KindUncertain, provider.KindTransient, ""},
	} {
		t.Run(tc.code, func(t *testing.T) {
			p, f := start(t)
			fault := conformance.Status(tc.status, refusal(tc.code, "canary in the message"), "Retry-After", tc.retryAfter)
			f.Faults().Next("create", fault)
			f.Faults().Next("list", fault)
			_, createErr := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: params})
			_, listErr := p.List(t.Context(), params, "")
			for what, got := range map[string]struct {
				err  error
				kind provider.Kind
			}{"create": {createErr, tc.create}, "list": {listErr, tc.kind}} {
				var e *provider.Error
				if !errors.As(got.err, &e) || e.Kind != got.kind || e.Status != tc.status {
					t.Errorf("%s: %v, want %v with status %d", what, got.err, got.kind, tc.status)
					continue
				}
				if strings.Contains(e.Error(), "canary") {
					t.Errorf("%s: AWS's words are in the error: %v", what, e)
				}
				if tc.retryAfter == "3" && e.RetryAfter != 3*time.Second {
					t.Errorf("%s: try again after %v", what, e.RetryAfter)
				}
			}
		})
	}
}

// A new key is not known everywhere at once. That must not look like a key
// that does not work, or every rotation would throw its new key away.
func TestNewKeyIsNotYetKnown(t *testing.T) {
	p, f := start(t)
	key := f.Seed("")
	f.unknown[key.ID] = true
	if err := p.Test(t.Context(), params, key); provider.KindOf(err) != provider.KindTransient {
		t.Fatalf("listed by IAM, unknown to STS: %v, want transient", err)
	}
	f.inactive[key.ID] = true
	if err := p.Test(t.Context(), params, key); provider.KindOf(err) != provider.KindUnauthorized {
		t.Fatalf("made inactive: %v, want unauthorized", err)
	}
	f.Delete(key.ID)
	if err := p.Test(t.Context(), params, key); provider.KindOf(err) != provider.KindUnauthorized {
		t.Fatalf("deleted: %v, want unauthorized", err)
	}
	f.Deny()
	if err := p.Test(t.Context(), params, key); provider.KindOf(err) != provider.KindTransient {
		t.Fatalf("IAM cannot be asked: %v, want transient", err)
	}
	if err := p.Test(t.Context(), params, provider.Key{Values: map[string]string{"key": "x"}}); provider.KindOf(err) != provider.KindRejected {
		t.Fatalf("half a key: %v", err)
	}
}

func TestListShowsInactiveKeys(t *testing.T) {
	p, f := start(t)
	a, b := f.Seed(""), f.Seed("")
	f.inactive[a.ID] = true
	keys, err := p.List(t.Context(), params, "ignored, as there are no names")
	if err != nil || len(keys) != 2 || keys[0].ID != a.ID || keys[1].ID != b.ID || keys[0].Created.IsZero() {
		t.Fatalf("%v, %v", keys, err)
	}
}

func TestSettings(t *testing.T) {
	good := map[string]string{"access_key_id": "AKIA", "key": "canary-secret"}
	for _, tc := range []struct {
		name     string
		settings map[string]any
		cred     map[string]string
		want     []string
	}{
		{"no credential", nil, nil, []string{"the credential needs access_key_id and key"}},
		{"half a credential", nil, map[string]string{"key": "canary-secret"}, []string{"the credential needs"}},
		{"misspelt credential", nil, map[string]string{"access_key_id": "A", "secret": "canary-secret"}, []string{`"secret" is not known`}},
		{"region", map[string]any{"region": "Frankfurt"}, good, []string{`settings.region: "Frankfurt"`}},
		{"http endpoint", map[string]any{"iam_endpoint": "http://iam.example.com"}, good, []string{"iam_endpoint", "https"}},
		{"inner endpoint", map[string]any{"sts_endpoint": "https://169.254.169.254/"}, good, []string{"link-local"}},
		{"query in endpoint", map[string]any{"sts_endpoint": "https://sts.example.com/?x=1"}, good, []string{"query"}},
		{"unknown and wrong at once", map[string]any{"regoin": "x", "timeout": "1h"}, good, []string{"settings.regoin", "settings.timeout"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(provider.Config{Settings: tc.settings, Credential: tc.cred, Now: time.Now})
			for _, want := range tc.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q in it", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
	if _, err := New(provider.Config{Settings: map[string]any{"region": "eu-central-1"}, Credential: good, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(provider.Config{Credential: good}); err == nil {
		t.Fatal("without a clock")
	}
}
