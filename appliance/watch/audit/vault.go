package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/systembus"
)

// SignalUnit asks systemd for the main process of a unit and sends it SIGHUP. A
// process may signal another of its own user, so it needs no privilege when it
// runs as Vault's.
func SignalUnit(unit string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := systembus.Connect(ctx)
		if err != nil {
			return fmt.Errorf("ask systemd for %s: %w", unit, err)
		}
		defer c.Close()
		p, err := c.GetUnitTypePropertyContext(ctx, unit, "Service", "MainPID")
		if err != nil {
			return fmt.Errorf("ask systemd for %s: %w", unit, err)
		}
		pid, ok := p.Value.Value().(uint32)
		if !ok {
			return fmt.Errorf("ask systemd for %s: its main process is %v", unit, p.Value)
		}
		if pid == 0 {
			return ErrNotRunning
		}
		return hangUp(int(pid))
	}
}

// SignalPIDFile sends SIGHUP to the process whose number a file holds.
func SignalPIDFile(file string) func(context.Context) error {
	return func(context.Context) error {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return ErrNotRunning
		}
		if err != nil {
			return fmt.Errorf("process id: %w", err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || pid <= 1 {
			return fmt.Errorf("process id: file %q holds no process id", file)
		}
		return hangUp(pid)
	}
}

func hangUp(pid int) error {
	err := unix.Kill(pid, unix.SIGHUP)
	if errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("signal Vault (process %d): %w", pid, err)
	}
	return nil
}
