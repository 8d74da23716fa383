package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/kvexport"
	"strongroom.example/config/machine"
)

// kvOptions are what the verbs of kv share.
type kvOptions struct {
	vault vaultAccess
	mount string
	json  bool
}

func kvCommand() *cobra.Command {
	o := &kvOptions{}
	c := &cobra.Command{
		Use:   "kv",
		Short: "Export, import and roll back KV secrets",
		Long: `Export and import are the second way of backup, beside snapshots: chosen secrets
with their versions and metadata, encrypted with age. They need no more rights
than reading, or writing, these secrets.`,
	}
	o.vault.add(c.PersistentFlags())
	f := c.PersistentFlags()
	f.StringVar(&o.mount, "mount", "", "mount of the engine KV version 2 (default: secret; of an import: the export's)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	c.AddCommand(kvExportCommand(o), kvImportCommand(o), kvRollbackCommand(o))
	return c
}

func (o *kvOptions) mountOrDefault() string {
	if o.mount == "" {
		return machine.MountKV
	}
	return o.mount
}

// kvPath checks a secret's path, or a folder's with a slash at its end. KV takes names
// with blanks and other signs, too.
func kvPath(p string) error {
	for part := range strings.SplitSeq(strings.TrimSuffix(p, "/"), "/") {
		switch {
		case part == "", part == ".", part == "..":
			return &Error{Code: ExitUsage, Err: fmt.Errorf("path %q has a part that is empty or leads elsewhere", p), Hint: "give it without the mount, such as bike-data-flow/production/database-url"}
		case strings.ContainsFunc(part, unicode.IsControl):
			return &Error{Code: ExitUsage, Err: fmt.Errorf("path %q holds a sign that no name has", p), Hint: "give it as strongroom kv export lists it"}
		}
	}
	return nil
}

// kvMount refuses a mount that is not of KV version 2: version 1 takes what is meant for
// the other, as secrets of strange names. A token that may not ask is passed over.
func kvMount(ctx context.Context, c *vaultapi.Client, mount string) error {
	data, err := c.Read(ctx, "sys/internal/ui/mounts/"+mount)
	if vaultapi.IsDenied(err) || vaultapi.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the mount %q: %w", mount, err)
	}
	var m struct {
		Type    string            `json:"type"`
		Options map[string]string `json:"options"`
	}
	if err := data.Into(&m); err != nil {
		return fmt.Errorf("look at the mount %q: %w", mount, err)
	}
	if m.Type != "kv" || m.Options["version"] != "2" {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("the mount %q is no KV engine of version 2", mount), Hint: "name one with --mount; vault kv enable-versioning turns version 1 into it"}
	}
	return nil
}

// kvError gives the exit code and what to do.
func kvError(err error) error {
	switch {
	case err == nil || errors.As(err, new(*Error)):
		return err
	case errors.Is(err, kvexport.ErrWrongIdentity):
		return &Error{Code: ExitOperator, Err: err, Hint: "give --identity FILE with the private key of a recipient"}
	case errors.Is(err, kvexport.ErrDamaged):
		return &Error{Code: ExitDrift, Err: err, Hint: "nothing was written; use another copy of the file"}
	case errors.Is(err, kvexport.ErrConflict):
		return &Error{Code: ExitDrift, Err: err, Hint: "nothing was written; --force makes the export's values the newest versions"}
	}
	if errors.Is(err, kv.ErrChanged) {
		return &Error{Code: ExitFailed, Err: err, Hint: "somebody else has written it meanwhile: look at what is there, and run it again"}
	}
	return vaultError(err)
}
