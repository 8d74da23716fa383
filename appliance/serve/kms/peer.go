package kms

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerListener hands on only connections whose other end runs as an allowed
// uid; the rest are closed before a byte of them is read.
type peerListener struct {
	net.Listener
	allow []uint32
	log   *slog.Logger
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		cred, err := peerOf(c)
		if err == nil && slices.Contains(l.allow, cred.Uid) {
			return c, nil
		}
		if err != nil {
			l.log.Warn("connection refused: its peer is unknown", "error", err)
		} else {
			l.log.Warn("connection refused: uid not allowed", "uid", cred.Uid, "pid", cred.Pid)
		}
		c.Close()
	}
}

// peerOf asks the kernel who was at the other end when the connection was
// made (unix(7), SO_PEERCRED).
func peerOf(c net.Conn) (*unix.Ucred, error) {
	sc, ok := c.(syscall.Conn)
	if !ok || c.LocalAddr().Network() != "unix" {
		return nil, fmt.Errorf("connection of type %T is not a unix socket", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return nil, fmt.Errorf("peer credentials: %w", err)
	}
	return cred, nil
}
