package apikeys

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// mistakenUnit is up to where a duration without a unit was hardly meant as
// seconds: nobody has a key rotated by the minute.
const mistakenUnit = time.Hour

// warnOfUnits tells whoever wrote rotation_period=90 what that means in Vault.
func warnOfUnits(resp *logical.Response, err error, d *framework.FieldData) (*logical.Response, error) {
	if err != nil {
		return resp, err
	}
	for _, field := range []string{"rotation_period", "grace_period"} {
		raw, ok := d.Raw[field]
		if !ok {
			continue
		}
		text := strings.TrimSpace(fmt.Sprint(raw))
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 || n >= int64(mistakenUnit.Seconds()) {
			continue
		}
		if resp == nil {
			resp = &logical.Response{}
		}
		resp.AddWarning(fmt.Sprintf("%s=%s is in seconds: write %[2]sd for days", field, text))
	}
	if resp != nil && len(resp.Data) == 0 && len(resp.Warnings) == 0 {
		resp = nil // clients say Success! to no answer, and nothing to an empty one
	}
	return resp, nil
}
