package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// Record is a key as a fake service keeps it.
type Record struct {
	ID, Name, Value   string
	Params            map[string]any // what else the request said
	Created, LastUsed time.Time
}

// Fake is what all fake services have in common: keys, a credential and
// faults. The handler given to Serve gives it the shape of one service.
type Fake struct {
	// Credential is what the provider has to show; any strings, all secret.
	Credential []string
	// Limit is how many keys may be alive; 0: any number.
	Limit int
	// ID and Value shape the nth key's; random are 40 hexadecimal digits.
	ID func(n int) string
	// NameIsID tells that keys have no other id than their name.
	NameIsID bool
	Value    func(n int, random string) string
	// Values are what a provider makes of a record; nil: its value alone.
	Values func(r Record) map[string]string
	// Refusal is an error in the service's shape.
	Refusal func(message string) string

	denied  atomic.Bool
	faults  *Faults
	mu      sync.Mutex
	n       int
	records []Record
	issued  []string
}

var _ Service = (*Fake)(nil)

// Serve starts the service over TLS and gives its URL and the certificate, in
// PEM, that a client must trust.
func (f *Fake) Serve(t *testing.T, handler http.Handler, classify func(*http.Request) string) (url, ca string) {
	t.Helper()
	f.faults = NewFaults(handler, classify)
	server := httptest.NewUnstartedServer(f.faults)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// Create makes a key; false at the limit.
func (f *Fake) Create(name string, params map[string]any) (Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Limit > 0 && len(f.records) >= f.Limit {
		return Record{}, false
	}
	f.n++
	var b [20]byte
	rand.Read(b[:])
	random := hex.EncodeToString(b[:])
	r := Record{ID: f.ID(f.n), Name: name, Value: random, Params: params, Created: time.Unix(1_700_000_000+int64(f.n), 0).UTC()}
	if f.NameIsID {
		r.ID = name
	}
	if f.Value != nil {
		r.Value = f.Value(f.n, random)
	}
	f.records = append(f.records, r)
	f.issued = append(f.issued, r.Value)
	return r, true
}

// Delete ends a key; false where there is none.
func (f *Fake) Delete(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.records)
	f.records = slices.DeleteFunc(f.records, func(r Record) bool { return r.ID == id })
	return len(f.records) < before
}

// All are the living keys, the oldest first.
func (f *Fake) All() []Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.records)
}

// Find is the living key for which match is true.
func (f *Fake) Find(match func(Record) bool) (Record, bool) {
	for _, r := range f.All() {
		if match(r) {
			return r, true
		}
	}
	return Record{}, false
}

// ByValue is the living key with this value.
func (f *Fake) ByValue(value string) (Record, bool) {
	return f.Find(func(r Record) bool { return r.Value == value })
}

// Use is ByValue, and notes the use.
func (f *Fake) Use(value string) (Record, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.records {
		if f.records[i].Value == value {
			f.records[i].LastUsed = time.Unix(1_750_000_000, 0).UTC()
			return f.records[i], true
		}
	}
	return Record{}, false
}

// Denied tells whether the credential is to be refused.
func (f *Fake) Denied() bool { return f.denied.Load() }

// Alive implements Service.
func (f *Fake) Alive() []provider.RemoteKey {
	var out []provider.RemoteKey
	for _, r := range f.All() {
		out = append(out, provider.RemoteKey{ID: r.ID, Name: r.Name})
	}
	return out
}

// Works implements Service, and counts as a use of the key.
func (f *Fake) Works(key provider.Key) bool {
	for _, v := range key.Values {
		if _, ok := f.Use(v); ok {
			return true
		}
	}
	return false
}

// Seed implements Service.
func (f *Fake) Seed(name string) provider.Key {
	r, ok := f.Create(name, nil)
	if !ok {
		panic(fmt.Sprintf("no room for a seed: %d keys are alive", f.Limit))
	}
	values := map[string]string{provider.PrimaryValue: r.Value}
	if f.Values != nil {
		values = f.Values(r)
	}
	return provider.Key{ID: r.ID, Name: name, Values: values}
}

// Faults implements Service.
func (f *Fake) Faults() *Faults { return f.faults }

// Deny implements Service.
func (f *Fake) Deny() { f.denied.Store(true) }

// Secrets implements Service.
func (f *Fake) Secrets() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Concat(f.Credential, f.issued)
}

// ErrorBody implements Service.
func (f *Fake) ErrorBody(message string) string { return f.Refusal(message) }

// JSON answers with a status and a JSON document.
func JSON(w http.ResponseWriter, status int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(doc); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
}

// ByMethod classifies the requests of most services: POST creates, DELETE
// revokes, GET lists; test tells the requests that test a key.
func ByMethod(test func(*http.Request) bool) func(*http.Request) string {
	return func(r *http.Request) string {
		switch {
		case test != nil && test(r):
			return "test"
		case r.Method == http.MethodPost:
			return "create"
		case r.Method == http.MethodDelete:
			return "revoke"
		}
		return "list"
	}
}

// Quote is s as a JSON string.
func Quote(s string) string {
	b, err := json.Marshal(strings.ToValidUTF8(s, "?"))
	if err != nil {
		panic(err)
	}
	return string(b)
}
