package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/restorepath"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

// restorePaths are what --path needs beside the flags of restore.
type restorePaths struct {
	paths         []string
	keyFile       string
	vault, plugin string
	hide          []string
	user, mount   string
	passwordFile  string
}

func (p *restorePaths) add(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&p.paths, "path", nil, "bring back this secret only, as a new version; with / at the end all below it; repeatable")
	f.StringVar(&p.keyFile, "key-file", "", "with --path: file with the master key, or - for standard input (default: systemd's credential)")
	f.StringVar(&p.vault, "vault", "", "with --path: Vault's program (default: $VAULT_BIN, beside this program, $PATH)")
	f.StringVar(&p.plugin, "plugin", "", "with --path: the plugin's program (default: beside this program, "+machine.PluginDir+")")
	f.StringArrayVar(&p.hide, "hide", []string{machine.AuditDir}, "with --path: folder that what is started must not see; repeatable")
	f.StringVar(&p.user, "username", "", "with --path: log in to the Vault of the snapshot as this user (default: with the same token)")
	f.StringVar(&p.mount, "userpass-mount", "userpass", "with --path: where userpass is enabled")
	f.StringVar(&p.passwordFile, "password-file", "", "with --path and --username: file with the password as it was")
}

func (p *restorePaths) validate() error {
	for _, path := range p.paths {
		clean := strings.TrimSuffix(path, "/")
		if clean == "" || strings.HasPrefix(clean, "/") || strings.Contains(clean, "//") || strings.Contains("/"+clean+"/", "/../") {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("--path %q: want a secret's path such as secret/app/prod/name", path)}
		}
	}
	if (p.user == "") != (p.passwordFile == "") {
		return &Error{Code: ExitUsage, Err: errors.New("--username and --password-file: both or neither")}
	}
	return nil
}

func runRestorePaths(c *cobra.Command, o restoreOptions) error {
	ctx := c.Context()
	live, err := o.vault.client()
	if err != nil {
		return err
	}
	if _, err := live.LookupSelf(ctx); err != nil {
		return vaultError(err)
	}
	from, err := o.source(o.file == "")
	if err != nil {
		return restoreError(err)
	}
	p, err := from.Fetch(ctx)
	if err != nil {
		return restoreError(err)
	}
	defer p.Close()
	o.printPaths(c.OutOrStdout(), p)
	if o.dryRun {
		return nil
	}
	if err := o.confirm(c); err != nil {
		return err
	}
	keys, err := loadMasterKey(o.only.keyFile)
	if err != nil {
		return &Error{Code: ExitOperator, Err: err, Hint: "give the master key of the snapshot with --key-file: see docs/restore.md"}
	}
	copied, err := o.runPaths(ctx, c.OutOrStdout(), p, live, keys)
	printCopied(c.OutOrStdout(), copied)
	if errors.Is(err, restore.ErrTokenGone) {
		return &Error{Code: ExitOperator, Err: err, Hint: "the token is younger than the snapshot: give --username and --password-file, or an older token"}
	}
	if errors.Is(err, restorepath.ErrNoSecret) {
		return &Error{Code: ExitDrift, Err: err, Hint: "it was deleted then, or not written yet: try another snapshot with --id"}
	}
	if errors.Is(err, restorepath.ErrNoMetadata) {
		return &Error{Code: ExitOperator, Err: err, Hint: "the secrets listed are back; where metadata was refused, write it with a token that may: vault kv metadata put"}
	}
	if errors.Is(err, kv.ErrChanged) || vaultapi.IsUncertain(err) {
		return &Error{Code: ExitFailed, Err: err, Hint: "run it again: a secret that is as it was then stays untouched"}
	}
	if err != nil {
		return restoreError(err)
	}
	return nil
}

func printCopied(w io.Writer, copied []restorepath.Copied) {
	for _, s := range copied {
		switch {
		case s.Unchanged:
			fmt.Fprintf(w, "%s: the same already (version %d)\n", s.Path, s.Over)
		case s.NoMetadata:
			fmt.Fprintf(w, "%s: version %d of the snapshot is now version %d; brought back, without its custom metadata\n", s.Path, s.From, s.To)
		default:
			fmt.Fprintf(w, "%s: version %d of the snapshot is now version %d\n", s.Path, s.From, s.To)
		}
	}
}

func (o *restoreOptions) runPaths(ctx context.Context, out io.Writer, p *restore.Found, live *vaultapi.Client, keys *kms.Keyset) (copied []restorepath.Copied, err error) {
	programs, err := findPrograms(o.only.vault, o.only.plugin)
	if err != nil {
		return nil, err
	}
	if programs.Vault, err = filepath.Abs(programs.Vault); err != nil {
		return nil, err
	}
	dir, done, err := restorepath.Room(o.work, 3*max(p.Choice.Manifest.StateSize, p.Size))
	if err != nil {
		return nil, fmt.Errorf("--work-dir: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	return restorepath.Paths(ctx, restorepath.PathsOptions{
		Snapshot: p.Checked, Paths: o.only.paths, Live: live, Keyset: keys, Programs: programs,
		PluginDir: restorepath.PluginDir(o.only.plugin, programs.Plugin, machine.PluginDir),
		Dir:       dir, Hide: o.only.hide, Patience: o.timeout,
		Login: func(ctx context.Context, c *vaultapi.Client) error { return o.only.login(ctx, c, live) },
		Step:  func(name string) { fmt.Fprintf(out, "… %s\n", name) },
	})
}

// login uses the token of now, or a user of then.
func (p *restorePaths) login(ctx context.Context, c, live *vaultapi.Client) error {
	if p.user == "" {
		c.SetToken(live.Token())
		return nil
	}
	password, err := credential.Read(credential.Path(p.passwordFile))
	if err != nil {
		return err
	}
	return c.Login(ctx, "auth/"+p.mount+"/login/"+p.user, map[string]any{"password": strings.TrimRight(string(password), "\r\n")})
}

func (o *restoreOptions) printPaths(w io.Writer, p *restore.Found) {
	fmt.Fprintln(w, "Bring back single secrets")
	if o.file == "" {
		fmt.Fprintf(w, "  snapshot   %s\n", p.Choice.Manifest.ID)
	}
	fmt.Fprintf(w, "  from       %s\n", p.From)
	fmt.Fprintf(w, "  content    %s, raft index %d; checked wholly\n", words.Size(p.Size), p.Archive.Index)
	for _, path := range o.only.paths {
		fmt.Fprintf(w, "  secret     %s\n", path)
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  note       %s\n", note)
	}
	fmt.Fprintln(w, "Steps")
	fmt.Fprintln(w, "  - bring the snapshot up in a Vault of its own that reaches no network")
	fmt.Fprintln(w, "  - write each secret's newest version as a new version; nothing else is touched")
}
