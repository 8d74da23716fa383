package report

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"strongroom.example/appliance/base/signing"
)

// signed is what a report is to the envelope.
var signed = signing.Kind{Name: "drill report", Member: "report", Max: 8 << 20}

// Signed is a report's file.
type Signed struct {
	*signing.Envelope
	Report Report
}

// Encode gives a report's file. Without a key it is not signed.
func Encode(r *Report, key ed25519.PrivateKey) ([]byte, error) { return signed.Encode(r, key) }

// Parse reads a report's file and doesn't judge its signature.
func Parse(data []byte) (*Signed, error) {
	e, err := signed.Parse(data)
	if err != nil {
		return nil, err
	}
	s := &Signed{Envelope: e}
	if err := json.Unmarshal(e.Content, &s.Report); err != nil {
		return nil, fmt.Errorf("drill report: %w", err)
	}
	if s.Report.Format != Format {
		return nil, fmt.Errorf("drill report: format %d, this program reads %d", s.Report.Format, Format)
	}
	return s, nil
}
