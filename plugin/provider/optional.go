package provider

// CredentialRotator is what a provider is, too, whose own credential can be
// replaced by the same calls that mint and revoke keys. The engine creates a
// key with CredentialParameters, builds a provider from CredentialFrom, sees
// that it works, stores it, and only then revokes the former one.
type CredentialRotator interface {
	// CredentialParameters are the Parameters of a Create that mints a new
	// credential; ok is false where the settings declare none.
	CredentialParameters() (params map[string]any, ok bool)

	// CredentialFrom is the whole new Config.Credential: the present one with
	// the parts replaced that key brings.
	CredentialFrom(key Key) (map[string]string, error)
}

// DryRunner is what a provider is, too, that can show what it would send.
type DryRunner interface {
	// DryRun renders every request for a key with these parameters, without
	// I/O. Secrets are never in it: each is shown as Masked.
	DryRun(params map[string]any) ([]DryRequest, error)
}

// Masked stands in a DryRequest where a secret would be.
const Masked = "********"

// DryRequest is a request as it would be sent.
type DryRequest struct {
	Op     string            `json:"op"` // create, list, test, revoke, last_used
	Method string            `json:"method"`
	URL    string            `json:"url"`
	Header map[string]string `json:"header"`
	Body   string            `json:"body,omitempty"`
}
