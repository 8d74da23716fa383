package vaultapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"strongroom.example/config"
)

// A sealed or standing-by Vault is an answer; another server is none.
func TestHealth(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		want   Health
		is     func(error) bool
	}{
		"active":         {200, `{"initialized":true,"sealed":false,"standby":false,"version":"2","cluster_name":"c"}`, Health{Initialized: true, Version: "2", ClusterName: "c"}, isNil},
		"sealed":         {299, `{"initialized":true,"sealed":true}`, Health{Initialized: true, Sealed: true}, isNil},
		"new":            {299, `{"initialized":false,"sealed":true,"standby":true}`, Health{Sealed: true, Standby: true}, isNil},
		"Vault 1.21":     {200, `{"enterprise":false,"initialized":true,"replication_dr_mode":"disabled","version":"1.21.1"}`, Health{Initialized: true, Version: "1.21.1"}, isNil},
		"OpenBao":        {200, `{"initialized":true,"replication_dr_mode":"unknown","version":"2.7.2"}`, Health{Initialized: true, Version: "2.7.2", Product: config.ProductOpenBao}, isNil},
		"another server": {200, `{}`, Health{}, isForeign},
		"its page":       {200, `<html>`, Health{}, isForeign},
		"its 404":        {404, `not found`, Health{}, isForeign},
		"failed":         {500, `{"errors":["internal error"]}`, Health{}, IsInternal},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answers(tt.status, tt.body))
			h, err := client(t, Options{Address: s.URL}).Health(t.Context())
			if !tt.is(err) || err == nil && *h != tt.want {
				t.Errorf("%+v, %v", h, err)
			}
			if q := s.requests()[0].URL.Query(); q.Get("sealedcode") != "299" || q.Get("uninitcode") != "299" || q.Get("standbycode") != "299" {
				t.Errorf("asked %q", q)
			}
		})
	}
}

// A wait ends with the state that it waits for, and not before; when its time
// is over it says what was seen last.
func TestWait(t *testing.T) {
	const sealed, standby, active = `{"initialized":true,"sealed":true}`, `{"initialized":true,"standby":true}`, `{"initialized":true}`
	for name, tt := range map[string]struct {
		states    []string // what comes; the last stays
		listening int      // requests until each wait is over; 0: never
		active    int
		last      string
	}{
		"comes up":       {[]string{"", "", sealed, standby, active}, 3, 5, ""},
		"stays sealed":   {[]string{sealed}, 1, 0, "initialised=true sealed=true standby=false"},
		"not set up":     {[]string{`{"initialized":false}`}, 1, 0, "initialised=false"},
		"another server": {[]string{`{}`}, 0, 0, ErrNotVault.Error()},
	} {
		for what, want := range map[string]int{"listening": tt.listening, "active": tt.active} {
			t.Run(name+"/"+what, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				over := errors.New("time is over")
				var n atomic.Int32
				s := serve(t, func(w http.ResponseWriter, r *http.Request) {
					i := int(n.Add(1))
					if want == 0 && i > 2 {
						cancel(over)
					}
					if state := tt.states[min(i, len(tt.states))-1]; state != "" {
						answers(299, state)(w, r)
						return
					}
					hangUp(w, r)
				})
				c := client(t, Options{Address: s.URL}).Once(0)
				wait := c.WaitListening
				if what == "active" {
					wait = c.WaitActive
				}
				err := wait(ctx)
				if want != 0 {
					if err != nil || int(n.Load()) != want {
						t.Errorf("after %d answers: %v", n.Load(), err)
					}
					return
				}
				if !errors.Is(err, over) || !strings.Contains(err.Error(), tt.last) {
					t.Errorf("%v", err)
				}
			})
		}
	}
}
