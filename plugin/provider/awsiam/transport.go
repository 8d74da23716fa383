package awsiam

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

// endpoint reads an endpoint of the operator's own; nil where there is none.
func endpoint(m *fields.Map, name string, client *safehttp.Client) *string {
	text := m.String(name, "", 500)
	if !m.Has(name) {
		return nil
	}
	u, err := url.Parse(text)
	if err == nil {
		err = client.CheckURL(u)
	}
	if err == nil && u.RawQuery != "" {
		err = errors.New("must not hold a query")
	}
	if err != nil {
		m.Fail(name, "%.100q: %v", text, err)
		return nil
	}
	return &text
}

// transport carries the SDK's requests under safehttp's rules.
type transport struct {
	client interface {
		Do(ctx context.Context, req *http.Request) (*safehttp.Response, error)
	}
}

// attempted is the context's key of a *bool that Do sets: before that, the SDK
// has refused a request by itself, and nothing has happened.
type attempted struct{}

// Do sends one request. A success must be a whole XML document: the SDK would
// take an empty answer to a list for an empty list.
func (t *transport) Do(req *http.Request) (*http.Response, error) {
	if tried, ok := req.Context().Value(attempted{}).(*bool); ok {
		*tried = true
	}
	res, err := t.client.Do(req.Context(), req)
	if err != nil {
		return nil, err
	}
	if res.Status/100 == 2 && !whole(res.Body, awsmiddleware.GetOperationName(req.Context())) {
		return nil, &safehttp.Error{Sent: true, Status: res.Status, Msg: "the answer is not as documented"}
	}
	return &http.Response{
		StatusCode: res.Status, Header: res.Header, Request: req, ContentLength: int64(len(res.Body)),
		Body: io.NopCloser(bytes.NewReader(res.Body)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}, nil
}

// whole tells whether body is one well-formed element that answers operation.
// A list must say that it holds keys, even none, and whether it goes on.
func whole(body []byte, operation string) bool {
	d := xml.NewDecoder(bytes.NewReader(body))
	seen := map[string]bool{}
	root := ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false
		}
		if start, ok := token.(xml.StartElement); ok {
			if root == "" {
				root = start.Name.Local
			}
			seen[start.Name.Local] = true
		}
	}
	if operation == "ListAccessKeys" && !(seen["AccessKeyMetadata"] && seen["IsTruncated"]) {
		return false
	}
	return root == operation+"Response"
}

var codePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.]{0,63}$`)

// code is AWS's error code, if it is one.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) && codePattern.MatchString(api.ErrorCode()) {
		return api.ErrorCode()
	}
	return ""
}

// classify makes the SDK's error ours. AWS's message is left out: it quotes
// what was sent. unsure tells that a lost answer leaves the outcome open.
// The codes are those of IAM's common errors and of its operations
// (https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html).
func (p *Provider) classify(op string, err error, unsure bool) *provider.Error {
	e := &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "the service failed"}
	if unsure {
		e.Kind = provider.KindUncertain
	}
	var sent *safehttp.Error
	if errors.As(err, &sent) {
		e.Status, e.Msg, e.Err = sent.Status, sent.Msg, sent.Err
		if !sent.Sent {
			e.Kind = provider.KindTransient
		}
		return e
	}
	var res *awshttp.ResponseError
	if errors.As(err, &res) {
		e.Status = res.HTTPStatusCode()
		if r := res.HTTPResponse(); r != nil {
			e.RetryAfter = safehttp.RetryAfter(r.Header.Get("Retry-After"), p.now())
		}
	}
	what := code(err)
	if what != "" {
		e.Msg = "AWS answers " + what
	}
	switch what {
	case "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled":
		e.Kind = provider.KindRateLimited
		return e
	case "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException",
		"MissingAuthenticationToken", "IncompleteSignature", "InvalidAccessKeyId":
		e.Kind = provider.KindUnauthorized
		return e
	case "ExpiredToken", "ExpiredTokenException":
		e.Kind = provider.KindExpired
		return e
	case "AccessDenied", "AccessDeniedException", "OptInRequired":
		e.Kind = provider.KindForbidden
		e.Msg += ": IAM knows the credential, but does not let it do this"
		return e
	case "NoSuchEntity":
		e.Kind = provider.KindNotFound
		return e
	case "LimitExceeded":
		e.Kind = provider.KindLimit
		e.Msg += ": IAM allows two access keys a user"
		return e
	case "EntityTemporarilyUnmodifiable", "ConcurrentModification", "RequestExpired":
		e.Kind = provider.KindTransient
		return e
	}
	switch status := e.Status; {
	case status == 0 && !unsure && what == "":
		e.Msg = "the request could not be made"
	case status == http.StatusTooManyRequests:
		e.Kind = provider.KindRateLimited
	case status == http.StatusUnauthorized:
		e.Kind = provider.KindUnauthorized
	case status == http.StatusForbidden:
		e.Kind = provider.KindForbidden
	case status == http.StatusNotFound:
		e.Kind = provider.KindNotFound
	case status >= 300 && status < 400 && unsure:
		e.Msg = "the service redirects, which is not followed; whether it made the key is unknown"
	case status >= 300 && status < 500 && status != http.StatusRequestTimeout:
		e.Kind = provider.KindRejected
		if what == "" {
			e.Msg = "AWS refuses the request"
		}
	}
	return e
}
