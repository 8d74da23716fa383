package awsiam

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/safehttp"
)

// No answer makes a list shorter than the document says, and none is quoted.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`<ListAccessKeysResponse><ListAccessKeysResult><AccessKeyMetadata><member><AccessKeyId>canary</AccessKeyId></member></AccessKeyMetadata></ListAccessKeysResult></ListAccessKeysResponse>`), 200)
	f.Add([]byte(refusal("canary code", "canary")), 400)
	f.Add([]byte(``), 200)
	f.Add([]byte(`{"canary":1}`), 200)
	f.Add([]byte(`<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><SecretAccessKey>canary</SecretAccessKey></AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>`), 200)
	made, err := New(provider.Config{Now: time.Now, Credential: map[string]string{"access_key_id": adminID, "key": adminSecret}})
	if err != nil {
		f.Fatal(err)
	}
	p := made.(*Provider)
	says := &reply{}
	p.http.client = says // nothing goes over a network
	f.Fuzz(func(t *testing.T, answer []byte, code int) {
		says.status, says.body = 200+min(max(code, 0), 399), answer
		key, err := p.Create(t.Context(), provider.CreateRequest{Name: "n", Parameters: params})
		if err == nil && (key.ID == "" || key.Values["key"] == "") {
			t.Fatal("half a key")
		}
		keys, listErr := p.List(t.Context(), params, "")
		if listErr == nil && len(keys) == 0 && !strings.Contains(string(answer), "AccessKeyMetadata") {
			t.Fatalf("%q is taken for an empty list", answer)
		}
		for _, err := range []error{err, listErr} {
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Fatalf("the answer is quoted: %v", err)
			}
		}
	})
}

// reply is a service that says one thing.
type reply struct {
	status int
	body   []byte
}

func (r *reply) Do(context.Context, *http.Request) (*safehttp.Response, error) {
	return &safehttp.Response{Status: r.status, Header: http.Header{}, Body: r.body}, nil
}
