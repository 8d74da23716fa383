package kms

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// DefaultKeyName is the key's name in Vault's seal stanza and in the paths.
const DefaultKeyName = "strongroom"

const (
	maxBody       = 64 << 10 // bytes; a sealed root key is well below 1 KiB
	maxHeader     = 16 << 10 // bytes
	ioTimeout     = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	drainDuration = 3 * time.Second
)

// Server answers Vault's seal "transit": encrypt and decrypt under
// /v1/transit/ for one key name, in the JSON shapes of Vault's transit engine
// (https://developer.hashicorp.com/vault/api-docs/secret/transit). Everything
// else is a 404. The token that Vault sends is ignored: who may call is decided
// by the peer's uid.
type Server struct {
	Keyset  *Keyset
	KeyName string   // DefaultKeyName if empty
	Allow   []uint32 // uids that may connect; this process's own if empty
	Log     *slog.Logger
}

// Serve answers on ln until ctx ends, then lets running requests finish (at
// most 3 seconds) and closes ln. It returns nil after such an end.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.Keyset == nil {
		return errors.New("kms server has no keyset")
	}
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	allow := s.Allow
	if len(allow) == 0 {
		allow = []uint32{uint32(os.Geteuid())}
	}
	if ln.Addr().Network() != "unix" {
		ln.Close()
		return fmt.Errorf("kms listens on %q: only a unix socket tells who calls", ln.Addr().Network())
	}
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: ioTimeout,
		ReadTimeout:       ioTimeout,
		WriteTimeout:      ioTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(&peerListener{Listener: ln, allow: allow, log: log}) }()
	select {
	case err := <-done:
		return fmt.Errorf("kms server: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainDuration)
	defer cancel()
	err := srv.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-done
	return err
}

// Handler is the transit API without the listener.
func (s *Server) Handler() http.Handler {
	name := s.KeyName
	if name == "" {
		name = DefaultKeyName
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/transit/encrypt/{key}", only(name, s.encrypt))
	mux.HandleFunc("/v1/transit/decrypt/{key}", only(name, s.decrypt))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusNotFound, "") })
	return mux
}

// only passes writes for the one key and refuses the rest as Vault would.
func only(name string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut && r.Method != http.MethodPost {
			w.Header().Set("Allow", "POST, PUT")
			reply(w, http.StatusMethodNotAllowed, "unsupported operation")
			return
		}
		if got := r.PathValue("key"); got != name {
			reply(w, http.StatusBadRequest, fmt.Sprintf("encryption key %q not found: key_name in Vault's seal stanza must be %q", got, name))
			return
		}
		h(w, r)
	}
}

func (s *Server) encrypt(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Plaintext  *string `json:"plaintext"`
		KeyVersion int     `json:"key_version"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Plaintext == nil {
		reply(w, http.StatusBadRequest, "missing plaintext to encrypt")
		return
	}
	if in.KeyVersion != 0 && in.KeyVersion != s.Keyset.Primary() {
		reply(w, http.StatusBadRequest, fmt.Sprintf("cannot encrypt with key_version %d: only the newest, %d, encrypts", in.KeyVersion, s.Keyset.Primary()))
		return
	}
	plain, err := base64.StdEncoding.DecodeString(*in.Plaintext)
	if err != nil {
		reply(w, http.StatusBadRequest, "failed to base64-decode plaintext")
		return
	}
	defer clear(plain)
	c, err := s.Keyset.Encrypt(plain)
	if err != nil {
		reply(w, http.StatusInternalServerError, "encryption failed")
		return
	}
	send(w, map[string]any{"ciphertext": c, "key_version": s.Keyset.Primary()})
}

func (s *Server) decrypt(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Ciphertext string `json:"ciphertext"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Ciphertext == "" {
		reply(w, http.StatusBadRequest, "missing ciphertext to decrypt")
		return
	}
	plain, err := s.Keyset.Decrypt(in.Ciphertext)
	if err != nil {
		// The text names versions and the fingerprint, which are no secrets
		// and what an operator with the wrong escrow needs.
		s.warn("decrypt refused", err)
		reply(w, http.StatusBadRequest, err.Error())
		return
	}
	defer clear(plain)
	send(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}

func (s *Server) warn(msg string, err error) {
	if s.Log != nil {
		s.Log.Warn(msg, "error", err)
	}
}

// decode reads one JSON object of known fields from a bounded body. A field
// that this server does not know (context, nonce, batch_input …) changes what
// the call means, so it is refused and never ignored. The decoder's own words
// are not passed on: they may quote the body.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return true
		}
	}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		reply(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("request body is above %d bytes", maxBody))
		return false
	}
	reply(w, http.StatusBadRequest, "request body is not one JSON object with the fields of this call")
	return false
}

// send answers in the envelope of Vault's API.
func send(w http.ResponseWriter, data map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// An error here means that the peer has gone.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"request_id": "", "lease_id": "", "renewable": false, "lease_duration": 0,
		"data": data, "wrap_info": nil, "warnings": nil, "auth": nil,
	})
}

func reply(w http.ResponseWriter, status int, text string) {
	errs := []string{}
	if text != "" {
		errs = append(errs, text)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": errs})
}
