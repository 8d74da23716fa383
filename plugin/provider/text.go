package provider

import (
	"encoding/json"
	"strconv"
)

// ScalarText is a single value as it was written; ok: it has a text. Vault hands
// numbers over as json.Number; what comes as a float was a number in Go.
func ScalarText(v any) (text string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}
