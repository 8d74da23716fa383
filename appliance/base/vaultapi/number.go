package vaultapi

import "encoding/json"

// Number reads a whole number from the data that Vault has answered with; 0
// where there is none.
func Number(v any) int64 {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	i, err := n.Int64()
	if err != nil {
		return 0
	}
	return i
}
