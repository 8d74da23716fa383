package demo

import (
	"errors"
	"fmt"
	"net"
)

// Faults that a caller tells apart.
var (
	ErrInterrupted = errors.New("interrupted; everything was removed")
	ErrPortTaken   = errors.New("the address is in use")
	ErrListen      = errors.New("the address is not host:port on loopback")
)

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
