package vaultapi

import (
	"encoding/json"
	"testing"
)

func TestNumber(t *testing.T) {
	for name, c := range map[string]struct {
		in   any
		want int64
	}{
		"a number": {json.Number("60"), 60}, "none": {nil, 0}, "a word": {"60", 0}, "a fraction": {json.Number("1.5"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Number(c.in); got != c.want {
				t.Errorf("Number(%v) = %d, want %d", c.in, got, c.want)
			}
		})
	}
}
