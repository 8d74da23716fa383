package cli

import "github.com/spf13/cobra"

func auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Rotate, keep and watch Vault's audit logs",
		Long: `Keeps Vault's audit logs from filling the disk, as Vault refuses every request that
it can't log, and tells where a part of them is lost.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(auditRotateCommand(), auditWatchCommand(), auditAcknowledgeCommand())
	return c
}
