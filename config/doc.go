// Package config is what the appliance is told and what it tells others: the
// schema of appliance.toml, and the templates of Vault's and nftables' own
// configuration.
//
// It does no I/O beyond what it is handed, starts nothing, and knows nothing
// of how the files reach their place; that is the installer's part.
package config
