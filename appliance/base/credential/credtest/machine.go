// Package credtest stands in for systemd-creds(1) of systemd 252 and for a TPM in
// tests: what it does and says was measured on Debian 12 with swtpm.
// TestConformance holds it to the real ones. It hides what it seals, and no more.
package credtest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// TPM is a machine's TPM2.
type TPM struct {
	ID       int // another one opens nothing of this one's
	PCR7     int // a Secure Boot update changes it
	Lockout  bool
	Firmware bool // the firmware knows it, too
}

// Machine is what systemd-creds sees of a machine. The zero value has a host's
// key and no TPM.
type Machine struct {
	HostKey int  // another one opens nothing of this one's
	TPM     *TPM // nil for none
	// Stumbles is how many of the next decryptions fail for no reason that is known.
	Stumbles int
	// Calls are the arguments of each call.
	Calls [][]string
}

// box is what is behind a credential's header.
type box struct {
	Name      string
	Plain     []byte
	Host, TPM int // -1: not sealed by it
	PCR7      int // -1: not bound to it
	Empty     bool
}

// The ids of systemd's creds-util.h.
var ids = map[string]string{
	"host":      "\x5a\x1c\x6a\x86\xdf\x9d\x40\x96\xb1\xd5\xa6\x5e\x08\x62\xf1\x9a",
	"tpm2":      "\x0c\x7c\xc0\x7b\x11\x76\x45\x91\x9c\x4b\x0b\xea\x08\xbc\x20\xfe",
	"host+tpm2": "\x93\xa8\x94\x09\x48\x74\x44\x90\x90\xca\xf2\xfc\x93\xca\xb5\x53",
}

// Run is what credential.Run wants.
func (m *Machine) Run(_ context.Context, stdin []byte, args ...string) ([]byte, error) {
	m.Calls = append(m.Calls, args)
	switch args[0] {
	case "has-tpm2":
		return m.hasTPM2()
	case "encrypt":
		return m.encrypt(stdin, args[1:])
	case "decrypt":
		return m.decrypt(stdin, args[1:])
	}
	return nil, fmt.Errorf("systemd-creds: unknown verb %q", args[0])
}

// fails is how systemd-creds ends: an exit code, and what it has said.
func fails(said string, args ...any) error {
	return errors.New("exit status 1: " + fmt.Sprintf(said, args...))
}

func (m *Machine) hasTPM2() ([]byte, error) {
	switch {
	case m.TPM == nil:
		return []byte("partial\n-firmware\n-driver\n+system\n-subsystem\n"), errors.New("exit status 11")
	case !m.TPM.Firmware:
		return []byte("partial\n-firmware\n+driver\n+system\n+subsystem\n"), errors.New("exit status 1")
	}
	return []byte("yes\n+firmware\n+driver\n+system\n+subsystem\n"), nil
}

func (m *Machine) encrypt(plain []byte, args []string) ([]byte, error) {
	key, pcrs, name := "auto", "7", ""
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		switch k {
		case "--with-key":
			key = v
		case "--tpm2-pcrs":
			pcrs = v
		case "--name":
			name = v
		case "-":
		default:
			return nil, fmt.Errorf("systemd-creds: unknown argument %q", a)
		}
	}
	if key == "auto" {
		key = "host"
		if m.TPM != nil && m.TPM.Firmware {
			key = "host+tpm2"
		}
	}
	if ids[key] == "" {
		return nil, fmt.Errorf("systemd-creds: Unknown key type: %s", key)
	}
	b := box{Name: name, Plain: plain, Host: -1, TPM: -1, PCR7: -1}
	if strings.Contains(key, "host") {
		b.Host = m.HostKey
	}
	head := make([]byte, 56)
	copy(head, ids[key])
	binary.LittleEndian.PutUint32(head[16:], 32)
	binary.LittleEndian.PutUint32(head[20:], 1)
	binary.LittleEndian.PutUint32(head[24:], 12)
	binary.LittleEndian.PutUint32(head[28:], 16)
	if strings.Contains(key, "tpm2") {
		if m.TPM == nil {
			return nil, fails("Failed to initialize TCTI context: tcti:IO failure")
		}
		if m.TPM.Lockout {
			return nil, fails("Failed to generate HMAC key in TPM: tpm:warn(2.0): authorizations for objects subject to DA protection are not allowed at this time because the TPM is in DA lockout mode")
		}
		b.TPM = m.TPM.ID
		var mask uint64
		for _, p := range strings.FieldsFunc(pcrs, func(r rune) bool { return r == '+' || r == ',' }) {
			n, err := strconv.Atoi(p)
			if err != nil {
				return nil, err
			}
			mask |= 1 << n
		}
		if mask&(1<<7) != 0 {
			b.PCR7 = m.TPM.PCR7
		}
		b.Empty = mask == 0
		binary.LittleEndian.PutUint64(head[48:], mask)
	}
	rest, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	for i := range rest {
		rest[i] ^= 0xa5 // no text in it
	}
	return []byte(base64.StdEncoding.EncodeToString(append(head, rest...)) + "\n"), nil
}

func (m *Machine) decrypt(sealed []byte, args []string) ([]byte, error) {
	if m.Stumbles > 0 {
		m.Stumbles--
		return nil, fails("Failed to decrypt credential: Connection timed out")
	}
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(sealed)))
	if err != nil || len(raw) < 56 {
		return nil, fails("Failed to decrypt credential: Bad message")
	}
	rest := bytes.Clone(raw[56:])
	for i := range rest {
		rest[i] ^= 0xa5
	}
	var b box
	if err := json.Unmarshal(rest, &b); err != nil {
		return nil, fails("Decryption failed (incorrect key?): error:00000000:lib(0)::reason(0)")
	}
	if b.TPM >= 0 {
		switch {
		case b.Empty: // before a TPM is asked at all
			return nil, fails("TPM2 PCR bank invalid or not supported")
		case m.TPM == nil:
			return nil, fails("Failed to initialize TCTI context: tcti:IO failure")
		case b.PCR7 >= 0 && b.PCR7 != m.TPM.PCR7:
			return nil, fails("Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.")
		case m.TPM.Lockout:
			return nil, fails("TPM2 device is in dictionary attack lockout mode.")
		case b.TPM != m.TPM.ID:
			return nil, fails("Failed to load HMAC key in TPM: tpm:parameter(1):integrity check failed")
		}
	}
	if b.Host >= 0 && b.Host != m.HostKey {
		return nil, fails("Decryption failed (incorrect key?): error:00000000:lib(0)::reason(0)")
	}
	if name := strings.TrimPrefix(args[0], "--name="); name != b.Name {
		return nil, fails("Embedded credential name '%s' does not match filename '%s', refusing.", b.Name, name)
	}
	return b.Plain, nil
}
