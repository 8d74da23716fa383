package cli

import "github.com/spf13/cobra"

// commands is the explicit table of verbs. version is the program's own.
func commands(version string) []*cobra.Command {
	return []*cobra.Command{
		demoCommand(version),
		kmsCommand(),
		escrowCommand(),
		generateRootCommand(),
		loginCommand(),
		statusCommand(),
		doctorCommand(version),
		snapshotCommand(version),
		restoreCommand(version),
		drillCommand(version),
		verifySignedCommand(),
		isolateCommand(),
		auditCommand(),
		alertCommand(),
		metricsCommand(version),
		frontCommand(),
		appCommand(),
		personCommand(),
		providerCommand(),
		migrateCommand(),
		envCommand(),
		kvCommand(),
	}
}
