// Package snapshot takes encrypted backups of a Vault cluster, proves that they
// can be read back, and decides which of them may go.
//
// The two halves hold different powers. Take streams Vault's own raft snapshot
// through age to one or more destinations and needs only public keys. Verify
// downloads what was stored, decrypts it with an identity, checks the archive's
// own sums and compares everything with the manifest; nothing counts as a
// backup before that. They run as two units under two users.
//
// What is encrypted is exactly what Vault's sys/storage/raft/snapshot gave, so
// "age --decrypt" and "vault operator raft snapshot restore" bring it back
// without this program.
//
// Everything streams: memory use does not depend on the size of the snapshot.
//
// This package is not a Vault client (see Source), does not restore, and never
// holds a plain snapshot on disk.
package snapshot

import (
	"context"
	"io"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// Source gives one raft snapshot of a cluster.
type Source interface {
	// Snapshot writes the gzip-compressed tar archive of Vault's GET
	// sys/storage/raft/snapshot to w. It returns only when all of it has been
	// written, and an error of w's ends it.
	Snapshot(ctx context.Context, w io.Writer) error
}

// VaultInfo says which Vault a Source reads from, as GET sys/health tells it.
type VaultInfo struct {
	ClusterID   string
	ClusterName string
	Product     config.Product
	Version     string
}

// InfoOf is what a Vault's health tells.
func InfoOf(h *vaultapi.Health) VaultInfo {
	return VaultInfo{ClusterID: h.ClusterID, ClusterName: h.ClusterName, Product: h.Product, Version: h.Version}
}
