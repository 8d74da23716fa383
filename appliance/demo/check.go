package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/config/machine"
)

// Faults that a caller tells apart.
var (
	ErrInterrupted = errors.New("interrupted; everything was removed")
	ErrNotPlugin   = errors.New("this is not the apikeys plugin")
	ErrPortTaken   = errors.New("the address is in use")
	ErrListen      = errors.New("the address is not host:port on loopback")
)

var (
	pluginVersion = regexp.MustCompile(`^` + regexp.QuoteMeta(machine.PluginName) + ` ([0-9]+\.[0-9]+\.[0-9]+\S*) `)
)

// checkVault makes sure that path is what it should be before a folder full of
// logs has to be read for it.
func checkVault(ctx context.Context, path string) error {
	_, err := scratch.ServerOf(ctx, path)
	return err
}

// checkPlugin gives the version that Vault's catalog must register it with.
func checkPlugin(ctx context.Context, path string) (string, error) {
	out, err := scratch.Ask(ctx, path, "--version")
	if err != nil {
		return "", fmt.Errorf("program %q: %w: %w", path, ErrNotPlugin, err)
	}
	m := pluginVersion.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("program %q: %w: \"--version\" printed %.80q", path, ErrNotPlugin, out)
	}
	return "v" + m[1], nil
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
