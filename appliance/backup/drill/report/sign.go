package report

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"

	"strongroom.example/appliance/base/signing"
)

// SignedReport is what a report is to the envelope. It is the role machine.JobDrill that signs it.
var SignedReport = signing.Kind{Name: "drill report", Member: "report", Max: 8 << 20}

// Signed is a report's file.
type Signed struct {
	*signing.Envelope
	Report Report
}

// Encode gives a report's file. Without a key it is not signed.
func Encode(r *Report, key ed25519.PrivateKey) ([]byte, error) { return SignedReport.Encode(r, key) }

// Parse reads a report's file and doesn't judge its signature.
func Parse(data []byte) (*Signed, error) {
	e, err := SignedReport.Parse(data)
	if err != nil {
		return nil, err
	}
	r, err := Read(e.Content)
	if err != nil {
		return nil, err
	}
	return &Signed{Envelope: e, Report: r}, nil
}

// Read reads what is in a report's envelope.
func Read(content []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(content, &r); err != nil {
		return r, fmt.Errorf("drill report: %w", err)
	}
	if r.Format != Format {
		return r, fmt.Errorf("drill report: format %d, this program reads %d", r.Format, Format)
	}
	return r, nil
}
