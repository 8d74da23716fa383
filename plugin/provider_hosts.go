package apikeys

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"

	"strongroom.example/plugin/provider"
)

// checkDestinations refuses settings that send a secret to a place to which it
// did not go before, unless whoever writes them shows the credential: who may
// change a provider's settings is not, by that, told its credential. p is next,
// built; given tells that the credential was shown.
func (b *backend) checkDestinations(ctx context.Context, old, next *providerRecord, p provider.Provider, given bool) error {
	destined, ok := p.(provider.Destined)
	if !ok {
		return nil
	}
	keys := len(b.index.ofProvider(next.Name))
	known := b.knownDestinations(ctx, old, next)
	for _, d := range destined.Destinations() {
		if slices.Contains(known, d) {
			continue
		}
		what, hint := "its credential", "write the credential in the same request"
		switch {
		case d.Secret == provider.SecretValue:
			if keys == 0 || given && proves(old, next) {
				continue
			}
			what = "its " + count(keys, "key")
			hint = "write its present credential in the same request, or another provider for that place"
		case given:
			continue
		case next.CredentialKey != "":
			what = fmt.Sprintf("the key %q", next.CredentialKey)
			hint = "write as credential, beside credential_key, what the key holds now: it is compared and not stored"
		case old == nil || len(next.Credential) == 0:
			continue // it has none
		}
		return refuse(hint, "provider %q would send %s to %s, where it was not sent so far", next.Name, what, d.Origin)
	}
	return nil
}

// proves tells that the credential of the request is the one that was there:
// another says nothing of whether its writer may have the keys.
func proves(old, next *providerRecord) bool {
	if old == nil || old.CredentialKey != next.CredentialKey {
		return false
	}
	return next.CredentialKey != "" || len(old.Credential) > 0 && sameSecrets(old.Credential, next.Credential)
}

// knownDestinations are the places where the secrets of next go already.
func (b *backend) knownDestinations(ctx context.Context, old, next *providerRecord) []provider.Destination {
	if old == nil {
		return nil
	}
	before, err := b.buildProvider(ctx, old)
	if err != nil {
		return nil // nobody knows
	}
	destined, ok := before.(provider.Destined)
	if !ok {
		return nil
	}
	known := destined.Destinations()
	if old.CredentialKey == next.CredentialKey {
		return known
	}
	// Another credential. If it is a key of this very provider, it goes where
	// keys go.
	key, err := b.record(ctx, next.CredentialKey)
	own := err == nil && key != nil && key.Def.Provider == next.Name
	var out []provider.Destination
	for _, d := range known {
		if d.Secret == provider.SecretValue {
			out = append(out, d)
			if own {
				out = append(out, provider.Destination{Secret: provider.SecretCredential, Origin: d.Origin})
			}
		}
	}
	return out
}

// sameSecrets compares in a time that does not depend on the values.
func sameSecrets(a, b map[string]string) bool {
	same := len(a) == len(b)
	for name, v := range a {
		same = subtle.ConstantTimeCompare([]byte(v), []byte(b[name])) == 1 && same
	}
	return same
}
