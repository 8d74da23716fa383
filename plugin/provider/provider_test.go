package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestKinds(t *testing.T) {
	for kind, want := range map[Kind]string{
		KindTransient: "transient", KindRateLimited: "rate_limited", KindUnauthorized: "unauthorized", KindRejected: "rejected",
		KindExpired: "expired", KindForbidden: "forbidden", KindLimit: "limit",
		KindNotFound: "not_found", KindUnsupported: "unsupported", KindUncertain: "uncertain", 0: "kind(0)", 11: "kind(11)", -1: "kind(-1)",
	} {
		if got := kind.String(); got != want {
			t.Errorf("%d: %q, want %q", int(kind), got, want)
		}
	}
}

func TestError(t *testing.T) {
	cause := errors.New("canary in the cause")
	e := &Error{Op: "create", Kind: KindRejected, Status: 409, Msg: "no room", Err: cause}
	if got := e.Error(); got != "create: rejected (HTTP 409): no room" {
		t.Error(got)
	}
	if got := (&Error{Op: "list", Kind: KindTransient, Msg: "down"}).Error(); got != "list: transient: down" {
		t.Error(got)
	}
	if !errors.Is(e, cause) {
		t.Error("the cause is lost")
	}
	if got := KindOf(fmt.Errorf("rotating: %w", e)); got != KindRejected {
		t.Error(got)
	}
	// Nothing is known of what a foreign error left behind.
	if got := KindOf(context.DeadlineExceeded); got != KindUncertain {
		t.Error(got)
	}
}

func TestKeyHidesItsValues(t *testing.T) {
	k := Key{ID: "k1", Name: "n", Values: map[string]string{PrimaryValue: "canary"}}
	for _, got := range []string{fmt.Sprint(k), fmt.Sprintf("%v", k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), k.String(), fmt.Sprint(&k)} {
		if strings.Contains(got, "canary") || !strings.Contains(got, "k1") {
			t.Error(got)
		}
	}
}

func TestCapabilitiesFor(t *testing.T) {
	for _, tc := range []struct {
		caps          Capabilities
		without, with bool
	}{
		{Capabilities{Mint: true}, true, true},
		{Capabilities{Mint: true, FromCurrent: true}, false, true},
		{Capabilities{}, false, false},
	} {
		if got := tc.caps.For(false).Mint; got != tc.without {
			t.Errorf("%+v without a current version: %v", tc.caps, got)
		}
		if got := tc.caps.For(true).Mint; got != tc.with {
			t.Errorf("%+v with one: %v", tc.caps, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for kind := KindTransient; kind <= KindUncertain; kind++ {
		want := kind == KindUnauthorized || kind == KindExpired
		if got := Refused(&Error{Op: "test", Kind: kind}); got != want {
			t.Errorf("%v: %v", kind, got)
		}
	}
	if Refused(nil) || Refused(errors.New("lost")) {
		t.Error("what is no refusal is one")
	}
}
