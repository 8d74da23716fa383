package test

import (
	"testing"
	"time"

	"strongroom.example/config"
	"strongroom.example/plugin/lifecycle"
)

// What config check takes for a key is what the engine takes.
func TestKeyLimits(t *testing.T) {
	for name, pair := range map[string][2]time.Duration{
		"shortest rotation": {config.MinRotation, lifecycle.MinPeriod},
		"longest rotation":  {config.MaxRotation, lifecycle.MaxPeriod},
		"shortest grace":    {config.MinGrace, lifecycle.MinGrace},
		"longest grace":     {config.MaxGrace, lifecycle.MaxGrace},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v in config, %v in the engine", name, pair[0], pair[1])
		}
	}
}
