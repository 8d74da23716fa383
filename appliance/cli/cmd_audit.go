package cli

import "github.com/spf13/cobra"

func auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Rotate and keep Vault's audit logs",
		Long: `Keeps Vault's audit logs from filling the disk: Vault refuses every request that
it can't log.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(auditRotateCommand())
	return c
}
