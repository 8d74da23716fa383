package credential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// tpmDevice is the kernel's, with its resource manager.
const tpmDevice = "/dev/tpmrm0"

// The properties of a TPM that are asked for (TPM 2.0 Library, part 2, 6.13).
const (
	propertyPermanent = 0x200 // bit 9: in lockout
	propertyCounter   = 0x20e
	propertyMaxTries  = 0x20f
	propertyInterval  = 0x210 // seconds after which a try is forgotten
)

// LockoutLeft says how long this machine's TPM stays in lockout at most, if it
// is left on; 0 where it is in none.
func LockoutLeft() (time.Duration, error) {
	dev, err := os.OpenFile(tpmDevice, os.O_RDWR, 0)
	if err != nil {
		return 0, fmt.Errorf("ask the TPM: %w", err)
	}
	defer dev.Close()
	return lockoutLeft(dev)
}

func lockoutLeft(dev io.ReadWriter) (time.Duration, error) {
	p := map[uint32]uint32{}
	// The properties of this group come in order, in one answer: 0x200 to 0x214.
	if err := properties(dev, propertyPermanent, 0x20, p); err != nil {
		return 0, fmt.Errorf("ask the TPM: %w", err)
	}
	for _, want := range []uint32{propertyPermanent, propertyCounter, propertyMaxTries, propertyInterval} {
		if _, ok := p[want]; !ok {
			return 0, fmt.Errorf("ask the TPM: it does not tell property %#x", want)
		}
	}
	if p[propertyPermanent]&(1<<9) == 0 {
		return 0, nil
	}
	// One try is forgotten in each interval, and below the most it opens again.
	over := int64(p[propertyCounter]) - int64(p[propertyMaxTries]) + 1
	return time.Duration(max(over, 1)) * time.Duration(p[propertyInterval]) * time.Second, nil
}

// properties reads TPM properties by TPM2_GetCapability (part 3, 30.2), which
// wants no authorization and changes nothing.
func properties(dev io.ReadWriter, first, count uint32, into map[uint32]uint32) error {
	ask := binary.BigEndian.AppendUint16(nil, 0x8001) // no sessions
	for _, v := range []uint32{22, 0x17a, 6, first, count} {
		ask = binary.BigEndian.AppendUint32(ask, v)
	}
	if _, err := dev.Write(ask); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := dev.Read(answer)
	if err != nil {
		return err
	}
	answer = answer[:n]
	const head = 10 + 1 + 4 + 4 // header, more, capability, count
	if len(answer) < 10 {
		return errors.New("its answer is too short")
	}
	if rc := binary.BigEndian.Uint32(answer[6:]); rc != 0 {
		return fmt.Errorf("it answers with code %#x", rc)
	}
	if len(answer) < head {
		return errors.New("its answer is too short")
	}
	for rest := answer[head:]; len(rest) >= 8; rest = rest[8:] {
		into[binary.BigEndian.Uint32(rest)] = binary.BigEndian.Uint32(rest[4:])
	}
	return nil
}
