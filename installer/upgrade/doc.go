// Package upgrade replaces an installed appliance by the one that this
// installer carries, and Vault by another one, so that it either ends well or
// leaves the machine as it was.
//
// First nothing is changed: the new programs are put beside the old ones, a
// snapshot is taken, and the new programs are started on a copy of it, cut off
// from everything. Then what will be replaced is kept, and the installer's
// steps are applied. If they fail, or what runs then is not healthy, everything
// that was kept is put back. A record, written before each stage, tells a run
// that follows a killed one where that one was: it goes on, or takes back.
//
// A new Vault may change its storage so that the old one can't read it. So the
// storage is copied while Vault is stopped, and the copy put back with the old
// program; nothing that was written before the stop is lost by that.
//
// It is not the way back to an older version after an upgrade that ended well
// and has been in use: that is a restore.
package upgrade
