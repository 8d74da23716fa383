package cli

import (
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"strongroom.example/appliance/serve/kms"
)

// spareMemory trades a little CPU for memory: backups run beside Vault on a
// small machine, and stream.
func spareMemory() {
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(32 << 20)
	debug.FreeOSMemory()
	// Where that fails the job is larger by these pages, and otherwise well.
	if err := kms.DropStartupPages(); err != nil {
		slog.Debug("startup pages stay", "error", err)
	}
}

// stateDir is the flag's, systemd's, or the installed place.
func stateDir(flag, installed string) string {
	if flag != "" {
		return flag
	}
	// systemd gives several with colons between them; the first is the job's.
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return dir
	}
	return installed
}
