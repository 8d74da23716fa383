package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"strongroom.example/config/machine"
)

// Faults that a caller tells apart.
var (
	ErrInterrupted = errors.New("interrupted; everything was removed")
	ErrNotVault    = errors.New("this is not a Vault program")
	ErrNotPlugin   = errors.New("this is not the apikeys plugin")
	ErrPortTaken   = errors.New("the address is in use")
	ErrListen      = errors.New("the address is not host:port on loopback")
)

var (
	vaultVersion  = regexp.MustCompile(`^Vault v[0-9]+\.[0-9]+\.[0-9]+`)
	pluginVersion = regexp.MustCompile(`^` + regexp.QuoteMeta(machine.PluginName) + ` ([0-9]+\.[0-9]+\.[0-9]+\S*) `)
)

// checkVault makes sure that path is what it should be before a folder full of
// logs has to be read for it.
func checkVault(ctx context.Context, path string) error {
	_, err := checkProgram(ctx, path, ErrNotVault, vaultVersion, "version")
	return err
}

// checkPlugin gives the version that Vault's catalog must register it with.
func checkPlugin(ctx context.Context, path string) (string, error) {
	m, err := checkProgram(ctx, path, ErrNotPlugin, pluginVersion, "--version")
	if err != nil {
		return "", err
	}
	return "v" + m[1], nil
}

func checkProgram(ctx context.Context, path string, fault error, want *regexp.Regexp, arg string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arg)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("program %q: %w", path, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("program %q: %w: %q failed: %w", path, fault, arg, err)
	}
	match := want.FindStringSubmatch(string(out))
	if match == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		if len(first) > 80 {
			first = first[:80] + "…"
		}
		return nil, fmt.Errorf("program %q: %w: %q printed %q", path, fault, arg, first)
	}
	return match, nil
}

// freeListen turns a wanted address into one with a port that is free now.
func freeListen(addr string) (string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback() {
		return "", fmt.Errorf("%q: %w", addr, ErrListen)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("%q: %w: %w", addr, ErrPortTaken, err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
