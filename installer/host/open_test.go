package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"strongroom.example/appliance/base/systembus"
)

// systemBus answers as the system's bus does, as far as Open needs it, and then refuses
// every call. It gives its address.
func systemBus(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveBus(conn)
		}
	}()
	return "unix:path=" + path
}

func serveBus(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch line = strings.Trim(line, "\x00\r\n"); {
		case line == "BEGIN":
			for serial := uint32(1); ; serial++ {
				call, err := godbus.DecodeMessage(in)
				if err != nil {
					return
				}
				answer := &godbus.Message{Type: godbus.TypeError, Headers: map[godbus.HeaderField]godbus.Variant{
					godbus.FieldReplySerial: godbus.MakeVariant(call.Serial()),
					godbus.FieldErrorName:   godbus.MakeVariant("org.example.StillHere"),
				}}
				if call.Headers[godbus.FieldMember].Value() == "Hello" {
					delete(answer.Headers, godbus.FieldErrorName)
					answer.Type = godbus.TypeMethodReply
					answer.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(""))
					answer.Body = []any{":1.1"}
				}
				var b bytes.Buffer
				if err := answer.EncodeTo(&b, binary.LittleEndian); err != nil {
					return
				}
				binary.LittleEndian.PutUint32(b.Bytes()[8:], serial)
				if _, err := conn.Write(b.Bytes()); err != nil {
					return
				}
			}
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			_, err = conn.Write([]byte("OK 0123456789abcdef0123456789abcdef\r\n"))
		case line == "NEGOTIATE_UNIX_FD":
			_, err = conn.Write([]byte("ERROR\r\n"))
		default:
			_, err = conn.Write([]byte("REJECTED EXTERNAL\r\n"))
		}
		if err != nil {
			return
		}
	}
}

// After an interrupt things are put back, over the same connection.
func TestConnectionOutlivesTheSignal(t *testing.T) {
	bus := systemBus(t)
	ctx, interrupt := context.WithCancel(t.Context())
	h, closing, err := open(ctx, func(ctx context.Context) (*dbus.Conn, error) { return systembus.At(ctx, bus) })
	if err != nil {
		t.Fatal(err)
	}
	defer closing()
	interrupt()
	// Whoever closes it does so beside us.
	for range 100 {
		if err := h.ReloadUnits(context.WithoutCancel(ctx)); err == nil || !strings.Contains(err.Error(), "org.example.StillHere") {
			t.Fatalf("systemd was not asked: %v", err)
		}
	}
}

// A program that the caller has put first is not run as root.
func TestCallersPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"env", "planted-program"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho PLANTED=1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("VAULT_TOKEN", "planted")
	out, err := OSRunner{}.Run(t.Context(), Command{Args: []string{"env"}})
	if err != nil || strings.Contains(string(out.Stdout), "PLANTED") || strings.Contains(string(out.Stdout), dir) || strings.Contains(string(out.Stdout), "VAULT_") {
		t.Errorf("%s, %v", out.Stdout, err)
	}
	if out, err := (OSRunner{}).Run(t.Context(), Command{Args: []string{"planted-program"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%s, %v", out.Stdout, err)
	}
}
