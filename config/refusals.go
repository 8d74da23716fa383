package config

// What the front answers by itself to a path that is not for the outside. The front says it;
// whoever asks from outside knows by it that it was the front, and not Vault, that
// refused.
const (
	// RefusedSystem is for what of sys/ is the machine's own; with status 403.
	RefusedSystem = "this sys/ path is answered on the machine itself only"
	// RefusedLocal is for the log-in that only this machine has; with status 403.
	RefusedLocal = "this log-in is taken on the machine itself only"
	// RefusedSpelling is for what readers may take differently; with status 400.
	RefusedSpelling = "this path is spelled in a way that readers may take differently: send it plainly"
	// RefusedUnknown is for what is neither Vault's API nor its UI; with status 404.
	RefusedUnknown = "no such path: Vault's API is below /v1/"
)
