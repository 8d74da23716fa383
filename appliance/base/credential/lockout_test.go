package credential

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"strongroom.example/appliance/base/credential/credtest"
)

// chip answers as a TPM does.
type chip struct {
	answer []byte
	asked  []byte
}

func (c *chip) Write(p []byte) (int, error) { c.asked = append(c.asked, p...); return len(p), nil }
func (c *chip) Read(p []byte) (int, error) {
	if len(c.answer) == 0 {
		return 0, io.EOF
	}
	return copy(p, c.answer), nil
}

func told(code uint32, pairs ...uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x8001)
	b = binary.BigEndian.AppendUint32(b, uint32(19+4*len(pairs)))
	b = binary.BigEndian.AppendUint32(b, code)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, 6)
	b = binary.BigEndian.AppendUint32(b, uint32(len(pairs)/2))
	for _, v := range pairs {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func TestLockoutLeft(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		want   time.Duration
		fails  bool
	}{
		"none":           {told(0, 0x200, 0, 0x20e, 0, 0x20f, 3, 0x210, 1000), 0, false},
		"just":           {told(0, 0x200, 1<<9, 0x20e, 3, 0x20f, 3, 0x210, 1000), 1000 * time.Second, false},
		"far over":       {told(0, 0x200, 1<<9, 0x20e, 34, 0x20f, 32, 0x210, 7200), 6 * time.Hour, false},
		"odd":            {told(0, 0x200, 1<<9, 0x20e, 0, 0x20f, 32, 0x210, 600), 600 * time.Second, false},
		"tells no count": {told(0, 0x200, 1<<9, 0x20f, 3, 0x210, 1000), 0, true},
		"an error":       {told(0x101)[:10], 0, true},
		"short":          {told(0)[:5], 0, true},
		"head only":      {told(0)[:12], 0, true},
		"nothing":        {nil, 0, true},
		"half a pair":    {append(told(0, 0x200, 0, 0x20e, 0, 0x20f, 3), 0, 0, 2), 0, true},
	} {
		got, err := lockoutLeft(&chip{answer: c.answer})
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	c := &chip{answer: told(0)}
	_, _ = lockoutLeft(c)
	if want := []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 6, 0, 0, 2, 0, 0, 0, 0, 0x20}; !bytes.Equal(c.asked, want) {
		t.Errorf("asked: % x", c.asked)
	}
}

// A real TPM's lockout is seen, with its end.
func TestLockoutOfRealTPM(t *testing.T) {
	r := credtest.NewReal(t)
	ask := func() time.Duration {
		dev, err := net.Dial("tcp", r.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		left, err := lockoutLeft(dev)
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	if left := ask(); left != 0 {
		t.Errorf("before: %v", left)
	}
	r.PowerCuts()
	if left := ask(); left != 1000*time.Second {
		t.Errorf("after three power cuts: %v", left)
	}
}
