// Package recover rebuilds a lost machine on a fresh one: the steps of an
// installation, but with the escrowed master key in place of a new one, with the
// configuration and certificates that were kept beside the snapshot, and with the
// snapshot restored before anybody is let in.
//
// Everything that can be refused is refused before the first change: the snapshot
// is downloaded and checked wholly, the escrow is opened, and the master key is
// compared with the snapshot's seal without a Vault. A run that was killed is run
// again and goes on; where it was it sees from the machine and from a state file.
//
// It is not the restore onto a machine that works: that is appliance/backup/restore.
package recover
