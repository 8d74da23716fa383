package provider

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
