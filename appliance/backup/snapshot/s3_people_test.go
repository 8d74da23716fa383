package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// A refusal of a store's has its cause, although a HEAD's answer has no body. The rows
// that a real server can be brought to are held to it.
func TestStoreRefusals(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "backups", false)
	// What a request that is 16 minutes old is.
	late := newProxy(t, v, func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Set("X-Amz-Date", time.Now().UTC().Add(-16*time.Minute).Format("20060102T150405Z"))
		return false
	})
	real := map[string]S3Config{
		"RequestTimeTooSkewed":         {Bucket: "backups", Endpoint: late.URL},
		"XAdminUserNotFound":           {Bucket: "backups", AccessKey: "nobody"},
		"InvalidToken":                 {Bucket: "backups", SessionToken: "short-lived"},
		"SignatureDoesNotMatch":        {Bucket: "backups", SecretKey: "another"},
		"NoSuchBucket":                 {Bucket: "nowhere"},
		"AuthorizationHeaderMalformed": {Bucket: "backups", Region: "mars-1"},
	}
	for _, row := range []struct {
		status     int
		code, more string
		want       error
		says       string
	}{
		{403, "RequestTimeTooSkewed", "", ErrSkew, ""},
		{403, "RequestExpired", "", ErrSkew, ""},
		{400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>", ErrRegion, `"eu-central-1"`},
		{301, "PermanentRedirect", "", ErrRegion, ""},
		{307, "TemporaryRedirect", "", ErrRegion, ""},
		{400, "ExpiredToken", "", ErrDenied, ""},
		{403, "InvalidAccessKeyId", "", ErrDenied, ""},
		{404, "XAdminUserNotFound", "", ErrDenied, ""}, // versitygw's
		{400, "InvalidToken", "", ErrDenied, ""},
		{403, "SignatureDoesNotMatch", "", ErrDenied, ""},
		{403, "AccessDenied", "", ErrDenied, ""},
		{400, "KMS.DisabledException", "", ErrStoreKey, ""},
		{403, "InvalidObjectState", "", ErrArchived, ""},
		{404, "NoSuchBucket", "", ErrPlace, ""},
		{503, "SlowDown", "", ErrBusy, "unreachable: the store is busy, and asks for fewer requests"},
		{429, "TooManyRequests", "", ErrBusy, "asks for fewer requests"},
		{503, "ServiceUnavailable", "", ErrBusy, ""},
		{507, "XMinioStorageFull", "", ErrFull, ""},
	} {
		t.Run(row.code, func(t *testing.T) {
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(row.status)
				if r.Method != http.MethodHead {
					_, _ = io.WriteString(w, "<Error><Code>"+row.code+"</Code><Message>no</Message>"+row.more+"</Error>")
				}
			}))
			defer server.Close()
			s := v.open(t, S3Config{Bucket: "backups", Endpoint: server.URL})
			_, put := s.Put(t.Context(), "c/x"+suffixSnap, strings.NewReader("x"))
			_, stat := s.Stat(t.Context(), "c/x"+suffixSnap)
			_, list := s.List(t.Context(), "")
			_, get := s.Get(t.Context(), "c/x"+suffixSnap)
			for what, err := range map[string]error{"put": put, "stat": stat, "list": list, "get": get} {
				if row.status == http.StatusNotFound && errors.Is(err, ErrNotFound) {
					continue // a HEAD's 404 is the object's, as far as anybody can tell
				}
				if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) {
					t.Errorf("%s: %v; want %v", what, err, row.want)
				}
			}
			if n := asked.Load(); n > 30 {
				t.Errorf("%d requests", n)
			}
			cfg, ok := real[row.code]
			if !ok {
				return
			}
			s = v.open(t, cfg)
			_, err := s.List(t.Context(), "")
			var answer minio.ErrorResponse
			if !errors.As(err, &answer) || answer.Code != row.code || answer.StatusCode != row.status {
				t.Errorf("a real server answers %d %s: %v", answer.StatusCode, answer.Code, err)
			}
			if _, err = s.Put(t.Context(), "c/x"+suffixSnap, strings.NewReader("x")); !errors.Is(err, row.want) {
				t.Errorf("of a real server: %v; want %v", err, row.want)
			}
		})
	}
}

// An endpoint as a store's console prints it, with the bucket before the host or behind
// it, is the same place; a path of another kind is refused.
func TestEndpointThatHoldsTheBucket(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://fsn1.your-objectstorage.com":                 "s3:fsn1.your-objectstorage.com/vault-backups",
		"https://vault-backups.fsn1.your-objectstorage.com":   "s3:fsn1.your-objectstorage.com/vault-backups",
		"https://vault-backups.fsn1.your-objectstorage.com/":  "s3:fsn1.your-objectstorage.com/vault-backups",
		"https://fsn1.your-objectstorage.com/vault-backups":   "s3:fsn1.your-objectstorage.com/vault-backups",
		"https://fsn1.your-objectstorage.com/vault-backups/":  "s3:fsn1.your-objectstorage.com/vault-backups",
		"https://vault-backups.s3.eu-central-1.amazonaws.com": "s3:s3.eu-central-1.amazonaws.com/vault-backups",
		"https://vault-backups.example.com":                   "s3:vault-backups.example.com/vault-backups",
		"https://s3.example.com:9000":                         "s3:s3.example.com:9000/vault-backups",
		"https://s3.example.com/other":                        "",
		"https://s3.example.com/vault-backups/more":           "",
	} {
		s, err := NewS3(S3Config{Endpoint: endpoint, Bucket: "vault-backups", AccessKey: "a", SecretKey: "b"})
		switch {
		case want == "" && (err == nil || !strings.Contains(err.Error(), "it has a path")):
			t.Errorf("%s: %v", endpoint, err)
		case want != "" && (err != nil || s.Name() != want):
			t.Errorf("%s: %v, %v; want %s", endpoint, s, err, want)
		case want != "" && strings.Contains(endpoint, "fsn1") && s.cfg.Region != "fsn1":
			t.Errorf("%s: region %q", endpoint, s.cfg.Region)
		}
	}
	// A bucket that is called as its location is.
	if s, err := NewS3(S3Config{Endpoint: "https://fsn1.your-objectstorage.com", Bucket: "fsn1", AccessKey: "a", SecretKey: "b"}); err != nil || s.Name() != "s3:fsn1.your-objectstorage.com/fsn1" {
		t.Errorf("%v, %v", s, err)
	}
}

// A session token is in each request, and signed. (A real server that knows the token is
// none that runs here: it refuses one, see above.)
func TestSessionToken(t *testing.T) {
	v := startVersity(t)
	var requests, without atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("X-Amz-Security-Token") != "short-lived" || !strings.Contains(r.Header.Get("Authorization"), "x-amz-security-token") {
			without.Add(1)
		}
		answer(http.StatusServiceUnavailable, "SlowDown")(w, r)
	}))
	defer server.Close()
	s := v.open(t, S3Config{Bucket: "backups", Endpoint: server.URL, SessionToken: "short-lived"})
	_, _ = s.Put(t.Context(), "c/x"+suffixSnap, strings.NewReader("x"))
	_, _ = s.List(t.Context(), "")
	if requests.Load() == 0 || without.Load() > 0 {
		t.Errorf("%d of %d requests without it", without.Load(), requests.Load())
	}
}

// The bucket's name before the host, against a real server.
func TestVirtualHost(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "backups", false)
	_, port, err := net.SplitHostPort(v.addr)
	if err != nil {
		t.Fatal(err)
	}
	var wrong atomic.Value
	p := newProxy(t, v, func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.Host, "backups.localhost") || strings.HasPrefix(r.URL.Path, "/backups") {
			wrong.Store(fmt.Sprint(r.Method, " ", r.Host, r.URL.Path))
		}
		return false
	})
	s := v.open(t, S3Config{
		Bucket: "backups", Endpoint: "http://localhost:" + port, VirtualHost: true, PartSize: minPart,
		dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, p.Listener.Addr().String())
		},
	})
	k := newKeys(t)
	taken, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{state: randomBytes(2*minPart, 3)})), s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), verifyOptions(t, k, s)); err != nil {
		t.Fatal(err)
	}
	if w := wrong.Load(); w != nil {
		t.Errorf("a request of another style: %v", w)
	}
	// It is in the bucket as any.
	if _, err := v.open(t, S3Config{Bucket: "backups"}).Stat(t.Context(), taken.Manifest.Snapshot.Name); err != nil {
		t.Error(err)
	}
}

func TestKeyPairFile(t *testing.T) {
	for text, want := range map[string]string{
		"access_key = \"a\"\nsecret_key = \"b\"\n":                            "a b ",
		"access_key = \"a\"\nsecret_key = \"b\"\nsession_token = \"c\"\n":     "a b c",
		"access_key = \"a\"\nsession_token = \"SECRET\"\n":                    "",
		"access_key = \"a\"\nsecret_key = \"SECRET\"\nsession_token = \"\"\n": "",
		"access_key = \"a\"\nsecret_key = \"b\"\nother = \"SECRET\"\n":        "",
	} {
		a, b, c, err := KeyPair("f", []byte(text))
		if got := a + " " + b + " " + c; (err == nil) != (want != "") || err == nil && got != want || err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// What verify found out of object lock is in its record.
func TestVerifySaysUntilWhenItIsHeld(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	id := s.takeAt(t, d, k, testTime, false)
	for _, until := range []time.Time{{}, testTime.AddDate(0, 1, 0)} {
		d.locked[id.object(suffixSnap)] = until
		v := verifyOptions(t, k, d)
		if rec, err := Verify(t.Context(), v); err != nil || !rec.LockedUntil.Equal(until) {
			t.Errorf("%s, %v; want %s", rec.LockedUntil, err, until)
		}
		if state, err := LoadVerifyState(v.StateDir); err != nil || !state.LastGood["mem"].LockedUntil.Equal(until) {
			t.Errorf("%+v, %v", state, err)
		}
	}
}
