package awsiam

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

const (
	adminID     = "AKIAADMINCANARY00001"
	adminSecret = "canary/admin+secret/wJalrXUtnFEMI"
	userOfTests = "pipeline@data"
)

// fakeAWS answers as IAM's and STS's query APIs are documented, and checks
// signatures as AWS does.
type fakeAWS struct {
	*conformance.Fake
	inactive map[string]bool // by id
	unknown  map[string]bool // by id: STS has not heard of it yet
}

func newFake() *fakeAWS {
	f := &fakeAWS{inactive: map[string]bool{}, unknown: map[string]bool{}}
	f.Fake = &conformance.Fake{
		Credential: []string{adminSecret}, Limit: 2,
		ID:    func(n int) string { return fmt.Sprintf("AKIAIOSFODNN7%07d", n) },
		Value: func(_ int, random string) string { return random[:20] + "/" + random[20:39] },
		Values: func(r conformance.Record) map[string]string {
			return map[string]string{"key": r.Value, "access_key_id": r.ID}
		},
		Refusal: func(m string) string { return refusal("ValidationError", m) },
	}
	return f
}

func refusal(code, message string) string {
	var b bytes.Buffer
	if err := xml.EscapeText(&b, []byte(strings.ToValidUTF8(message, "?"))); err != nil {
		panic(err)
	}
	return fmt.Sprintf(`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type>`+
		`<Code>%s</Code><Message>%s</Message></Error><RequestId>7a62c49f-347e-4fc4-9331-6e8e</RequestId></ErrorResponse>`, code, b.String())
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	io.WriteString(w, refusal(code, message))
}

func answer(w http.ResponseWriter, action, result string) {
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<%sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">%s<ResponseMetadata><RequestId>7a62c49f</RequestId></ResponseMetadata></%sResponse>`,
		action, result, action)
}

func form(r *http.Request) url.Values {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	q, err := url.ParseQuery(string(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return q
}

func operation(r *http.Request) string {
	switch action := form(r).Get("Action"); action {
	case "CreateAccessKey":
		return "create"
	case "ListAccessKeys":
		return "list"
	case "DeleteAccessKey":
		return "revoke"
	case "GetAccessKeyLastUsed":
		return "last_used"
	case "GetCallerIdentity":
		return "test"
	default:
		return action
	}
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/(\d{8})/([a-z0-9-]+)/(iam|sts)/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)

// signer is who signed the request, or the error code with which AWS refuses.
func (f *fakeAWS) signer(r *http.Request) (id, refused string) {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return "", "MissingAuthenticationToken"
	}
	id = m[1]
	secret := adminSecret
	if id != adminID {
		rec, ok := f.Find(func(rec conformance.Record) bool { return rec.ID == id })
		if !ok || f.unknown[id] || f.inactive[id] {
			return "", "InvalidClientTokenId"
		}
		secret = rec.Value
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 5*time.Minute {
		return "", "RequestExpired"
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	again, err := http.NewRequest(r.Method, "https://"+r.Host+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for _, name := range strings.Split(m[5], ";") {
		if name != "host" && name != "content-length" {
			again.Header.Set(name, r.Header.Get(name))
		}
	}
	sum := sha256.Sum256(body)
	creds := aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}
	if err := v4.NewSigner().SignHTTP(r.Context(), creds, again, hex.EncodeToString(sum[:]), m[4], m[3], at); err != nil {
		panic(http.ErrAbortHandler)
	}
	if again.Header.Get("Authorization") != r.Header.Get("Authorization") {
		return "", "SignatureDoesNotMatch"
	}
	return id, ""
}

func (f *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := form(r)
	action := q.Get("Action")
	who, refused := f.signer(r)
	if refused != "" {
		refuse(w, http.StatusForbidden, refused, "The security token included in the request is invalid.")
		return
	}
	if action == "GetCallerIdentity" {
		answer(w, action, "<GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/x</Arn><UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult>")
		return
	}
	if who != adminID || f.Denied() {
		refuse(w, http.StatusForbidden, "AccessDenied", "User: arn:aws:iam::123456789012:user/x is not authorized to perform: iam:"+action)
		return
	}
	if user := q.Get("UserName"); user != userOfTests && action != "GetAccessKeyLastUsed" {
		refuse(w, http.StatusNotFound, "NoSuchEntity", "The user with name "+user+" cannot be found.")
		return
	}
	switch action {
	case "CreateAccessKey":
		rec, ok := f.Create("", nil)
		if !ok {
			refuse(w, http.StatusConflict, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
			return
		}
		answer(w, action, fmt.Sprintf("<CreateAccessKeyResult><AccessKey><UserName>%s</UserName><AccessKeyId>%s</AccessKeyId><Status>Active</Status>"+
			"<SecretAccessKey>%s</SecretAccessKey><CreateDate>2026-11-24T15:04:05Z</CreateDate></AccessKey></CreateAccessKeyResult>", userOfTests, rec.ID, rec.Value))
	case "ListAccessKeys":
		f.list(w, q)
	case "DeleteAccessKey":
		if !f.Delete(q.Get("AccessKeyId")) {
			refuse(w, http.StatusNotFound, "NoSuchEntity", "The Access Key with id "+q.Get("AccessKeyId")+" cannot be found.")
			return
		}
		answer(w, action, "")
	case "GetAccessKeyLastUsed":
		rec, ok := f.Find(func(rec conformance.Record) bool { return rec.ID == q.Get("AccessKeyId") })
		if !ok {
			refuse(w, http.StatusNotFound, "NoSuchEntity", "The Access Key cannot be found.")
			return
		}
		date := ""
		if !rec.LastUsed.IsZero() {
			date = "<LastUsedDate>" + rec.LastUsed.Format(time.RFC3339) + "</LastUsedDate>"
		}
		answer(w, action, "<GetAccessKeyLastUsedResult><UserName>"+userOfTests+"</UserName><AccessKeyLastUsed>"+date+
			"<Region>N/A</Region><ServiceName>N/A</ServiceName></AccessKeyLastUsed></GetAccessKeyLastUsedResult>")
	default:
		refuse(w, http.StatusBadRequest, "InvalidAction", "The action is not valid for this endpoint.")
	}
}

// list gives one key a page, so that there are pages.
func (f *fakeAWS) list(w http.ResponseWriter, q url.Values) {
	all := f.All()
	for len(all) > 0 && q.Get("Marker") != "" && all[0].ID <= q.Get("Marker") {
		all = all[1:]
	}
	members, more := "", ""
	for _, rec := range all[:min(1, len(all))] {
		status := "Active"
		if f.inactive[rec.ID] {
			status = "Inactive"
		}
		members += fmt.Sprintf("<member><UserName>%s</UserName><AccessKeyId>%s</AccessKeyId><Status>%s</Status><CreateDate>%s</CreateDate></member>",
			userOfTests, rec.ID, status, rec.Created.Format(time.RFC3339))
		if len(all) > 1 {
			more = "<Marker>" + rec.ID + "</Marker>"
		}
	}
	answer(w, "ListAccessKeys", fmt.Sprintf("<ListAccessKeysResult><UserName>%s</UserName><AccessKeyMetadata>%s</AccessKeyMetadata><IsTruncated>%t</IsTruncated>%s</ListAccessKeysResult>",
		userOfTests, members, more != "", more))
}

func start(t *testing.T) (provider.Provider, *fakeAWS) {
	t.Helper()
	f := newFake()
	return connect(t, f.Fake, f), f
}

// connect builds a provider for a service.
func connect(t *testing.T, f *conformance.Fake, h http.Handler) provider.Provider {
	t.Helper()
	endpoint, ca := f.Serve(t, h, operation)
	p, err := New(provider.Config{
		Name: "aws", Now: time.Now, Credential: map[string]string{"access_key_id": adminID, "key": adminSecret},
		Settings: map[string]any{"iam_endpoint": endpoint, "sts_endpoint": endpoint, "ca_certificate": ca, "allow_addresses": "127.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
