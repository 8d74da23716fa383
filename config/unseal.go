package config

// Unseal is the table [unseal]: what the credentials are sealed with from which
// the machine starts by itself.
type Unseal struct {
	Seal string `toml:"seal"`
}

// What credentials are sealed with.
const (
	SealAuto = "auto" // with the TPM where there is a usable one
	SealHost = "host" // never with a TPM
	SealTPM  = "tpm"  // with the TPM, or not at all
)

func (u Unseal) check(check func(string, error)) {
	check("unseal.seal", checkOneOf(u.Seal, SealAuto, SealHost, SealTPM))
}

// LoadUnseal reads and validates the table [unseal] of a file and passes over
// what else is in it. Its error is Faults: all of them.
func LoadUnseal(file string) (Unseal, error) {
	data, err := Read(file)
	if err != nil {
		return Unseal{}, err
	}
	u := Unseal{Seal: SealAuto}
	at, _, f := decodeTables(file, data, map[string]any{"unseal": &u})
	u.check(f.Check(file, at))
	return u, f.Err()
}
