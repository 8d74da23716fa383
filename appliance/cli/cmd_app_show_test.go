package cli

import (
	"testing"
	"time"

	"strongroom.example/appliance/secrets/apps"
)

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Hour: "1h", 90 * time.Minute: "1h30m", 30 * time.Minute: "30m", 24 * time.Hour: "24h", 10 * time.Minute: "10m",
		time.Minute + time.Second: "1m1s", 10 * time.Second: "10s", 0: "0s",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
}

func TestKeyLine(t *testing.T) {
	for _, tt := range []struct {
		key  apps.KeyState
		want string
	}{
		{apps.KeyState{Condition: "awaiting_import", Next: "2026-11-24T22:26:24.920906085Z"}, "awaiting_import"},
		{apps.KeyState{Version: 2, Condition: "ok", Next: "2027-02-22T21:29:25.403596616Z"}, "version 2, ok, next rotation 2027-02-22 21:29 UTC"},
		{apps.KeyState{Version: 2, Condition: "ok", Next: "n/a"}, "version 2, ok, next rotation n/a"},
	} {
		if got := keyLine(tt.key); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.key, got, tt.want)
		}
	}
}
