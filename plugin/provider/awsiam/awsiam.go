// Package awsiam issues access keys of AWS IAM users.
//
// IAM gives keys no names and allows two a user, so after a lost answer the
// engine tells by the ids which key nobody knows. This package never uses the
// machine's own role, environment or configuration files: the credential is
// the one in the settings' place, or none.
package awsiam

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/internal/fields"
	"strongroom.example/plugin/provider/safehttp"
)

// ValueAccessKeyID names the id among a key's values, and in the credential.
// The secret access key is the PrimaryValue in both.
const ValueAccessKeyID = "access_key_id"

// maxKeys is IAM's quota of access keys a user, which cannot be raised
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const maxKeys = 2

// Provider manages the access keys of the users that keys name.
type Provider struct {
	iam         *iam.Client
	http        *transport
	region      string
	stsEndpoint *string // nil: AWS's own
	now         func() time.Time
	origins     []string // of IAM and of STS
}

var (
	_ provider.Provider = (*Provider)(nil)
	_ provider.Destined = (*Provider)(nil)
	_ provider.Factory  = New
)

var (
	regionPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+$`)
	userPattern   = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`) // CreateAccessKey's documentation
)

// New builds the provider. Settings:
//
//	region            where requests are signed for; default us-east-1
//	iam_endpoint      in place of AWS's own
//	sts_endpoint      in place of AWS's own
//	allow_addresses, allow_http, ca_certificate, timeout   as for type http
//
// Credential: access_key_id, and key, the secret access key.
func New(cfg provider.Config) (provider.Provider, error) {
	m := fields.New("settings", cfg.Settings)
	m.String("description", "", 4000)
	fields.ReadHeldTo(m)
	p := &Provider{region: m.String("region", "us-east-1", 40), now: cfg.Now}
	if !regionPattern.MatchString(p.region) {
		m.Fail("region", "%.60q is no region such as eu-central-1", p.region)
	}
	client := safehttp.New(safehttp.ReadOptions(m))
	iamEndpoint := endpoint(m, "iam_endpoint", client)
	p.stsEndpoint = endpoint(m, "sts_endpoint", client)
	p.origins = []string{origin("iam", p.region, iamEndpoint), origin("sts", p.region, p.stsEndpoint)}
	p.http = &transport{client: client}
	id, secret := cfg.Credential[ValueAccessKeyID], cfg.Credential[provider.PrimaryValue]
	for name := range cfg.Credential {
		if name != ValueAccessKeyID && name != provider.PrimaryValue {
			m.Fail("", "the credential %.60q is not known here; known are %s and %s", name, ValueAccessKeyID, provider.PrimaryValue)
		}
	}
	if id == "" || secret == "" {
		m.Fail("", "the credential needs %s and %s, the secret access key", ValueAccessKeyID, provider.PrimaryValue)
	}
	if cfg.Now == nil {
		m.Fail("", "no clock was given")
	}
	if err := m.Err(); err != nil {
		return nil, err
	}
	p.iam = iam.New(iam.Options{
		Region: p.region, Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""),
		HTTPClient: p.http, Retryer: aws.NopRetryer{}, BaseEndpoint: iamEndpoint,
	})
	return p, nil
}

// origin is where a service's requests go, as far as settings decide it.
func origin(service, region string, endpoint *string) string {
	if endpoint == nil {
		return "https://" + service + "." + region + " (AWS)"
	}
	u, err := url.Parse(*endpoint)
	if err != nil {
		return *endpoint
	}
	return u.Scheme + "://" + u.Host
}

// Destinations are where requests go that the credential or a key signs. No
// secret is in them, but whoever gets one can send it on to AWS.
func (p *Provider) Destinations() []provider.Destination {
	return []provider.Destination{
		{Secret: provider.SecretCredential, Origin: p.origins[0]},
		{Secret: provider.SecretValue, Origin: p.origins[1]},
	}
}

// Capabilities of IAM.
func (p *Provider) Capabilities() provider.Capabilities {
	return provider.Capabilities{
		Mint: true, List: true, Test: true, Revoke: true, LastUsed: true, Overlap: true, MaxKeys: maxKeys,
	}
}

// ValidateParameters wants user_name, the IAM user whose keys these are.
func (p *Provider) ValidateParameters(params map[string]any) error {
	_, err := userName(params)
	return err
}

func userName(params map[string]any) (string, error) {
	m := fields.New("parameters", params)
	name := m.String("user_name", "", 64)
	if !userPattern.MatchString(name) {
		m.Fail("user_name", "%.70q is no name of an IAM user: 1 to 64 of a-z, A-Z, 0-9 and _+=,.@-", name)
	}
	return name, m.Err()
}

// Pool is the user: IAM counts keys by user.
func (p *Provider) Pool(params map[string]any) string {
	name, _ := userName(params) // with a wrong one no key is made
	return name
}

// user is userName for a call.
func user(op string, params map[string]any) (*string, error) {
	name, err := userName(params)
	if err != nil {
		return nil, &provider.Error{Op: op, Kind: provider.KindRejected, Msg: err.Error(), Err: err}
	}
	return &name, nil
}

// Create makes an access key. At two keys IAM refuses, which is KindLimit.
func (p *Provider) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	const op = "create"
	if err := provider.CheckName(req.Name); err != nil {
		return provider.Key{}, &provider.Error{Op: op, Kind: provider.KindRejected, Msg: err.Error(), Err: err}
	}
	name, err := user(op, req.Parameters)
	if err != nil {
		return provider.Key{}, err
	}
	tried := false
	out, err := p.iam.CreateAccessKey(context.WithValue(ctx, attempted{}, &tried), &iam.CreateAccessKeyInput{UserName: name})
	if err != nil {
		return provider.Key{}, p.classify(op, err, tried)
	}
	k := out.AccessKey
	if k == nil || aws.ToString(k.AccessKeyId) == "" || aws.ToString(k.SecretAccessKey) == "" {
		return provider.Key{}, &provider.Error{Op: op, Kind: provider.KindUncertain, Status: 200, Msg: "the key was created, but the answer lacks its id or secret"}
	}
	return provider.Key{
		ID: *k.AccessKeyId, Name: req.Name,
		Values: map[string]string{provider.PrimaryValue: *k.SecretAccessKey, ValueAccessKeyID: *k.AccessKeyId},
	}, nil
}

// List gives all keys of the user, the inactive ones, too: they count towards
// the limit, and anybody may make them active again. IAM has no names, so
// prefix is not looked at.
func (p *Provider) List(ctx context.Context, params map[string]any, _ string) ([]provider.RemoteKey, error) {
	const op = "list"
	name, err := user(op, params)
	if err != nil {
		return nil, err
	}
	keys, err := p.list(ctx, op, name)
	if err != nil {
		return nil, err
	}
	out := make([]provider.RemoteKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, provider.RemoteKey{ID: aws.ToString(k.AccessKeyId), Created: aws.ToTime(k.CreateDate)})
	}
	return out, nil
}

func (p *Provider) list(ctx context.Context, op string, name *string) ([]types.AccessKeyMetadata, error) {
	var out []types.AccessKeyMetadata
	pages := iam.NewListAccessKeysPaginator(p.iam, &iam.ListAccessKeysInput{UserName: name},
		func(o *iam.ListAccessKeysPaginatorOptions) { o.StopOnDuplicateToken = true })
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.classify(op, err, false)
		}
		out = append(out, page.AccessKeyMetadata...)
		if len(out) > 1000 {
			return nil, &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "the list does not end"}
		}
	}
	return out, nil
}

// Test asks STS who the key is. A new key takes some seconds to be known
// everywhere; while IAM lists a key that STS refuses, that is KindTransient
// and says nothing about the key.
func (p *Provider) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	const op = "test"
	id, secret := key.Values[ValueAccessKeyID], key.Values[provider.PrimaryValue]
	if id == "" || secret == "" {
		return &provider.Error{Op: op, Kind: provider.KindRejected, Msg: fmt.Sprintf("the key lacks %s or %s", ValueAccessKeyID, provider.PrimaryValue)}
	}
	client := sts.New(sts.Options{
		Region: p.region, Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""),
		HTTPClient: p.http, Retryer: aws.NopRetryer{}, BaseEndpoint: p.stsEndpoint,
	})
	_, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err == nil {
		return nil
	}
	refused := p.classify(op, err, false)
	if code(err) != "InvalidClientTokenId" {
		return refused
	}
	name, err := user(op, params)
	if err != nil {
		return err
	}
	keys, err := p.list(ctx, op, name)
	if err != nil {
		return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "STS does not know the key, and IAM could not be asked: " + err.Error()}
	}
	for _, k := range keys {
		if aws.ToString(k.AccessKeyId) == id && k.Status == types.StatusTypeActive {
			return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "IAM has the key, but STS does not know it yet"}
		}
	}
	return refused
}

// Revoke deletes the access key.
func (p *Provider) Revoke(ctx context.Context, params map[string]any, id string) error {
	const op = "revoke"
	name, err := user(op, params)
	if err != nil {
		return err
	}
	_, err = p.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: name, AccessKeyId: &id})
	if err == nil || code(err) == "NoSuchEntity" {
		return nil
	}
	return p.classify(op, err, false)
}

// LastUsed asks IAM, whose knowledge may be some hours old.
func (p *Provider) LastUsed(ctx context.Context, _ map[string]any, id string) (time.Time, error) {
	out, err := p.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &id})
	if err != nil {
		return time.Time{}, p.classify("last_used", err, false)
	}
	if out.AccessKeyLastUsed == nil {
		return time.Time{}, nil
	}
	return aws.ToTime(out.AccessKeyLastUsed.LastUsedDate), nil
}
