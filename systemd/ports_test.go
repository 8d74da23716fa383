package systemd

import (
	"slices"
	"testing"
)

func TestPorts(t *testing.T) {
	want := []Port{{"tcp", 80}, {"tcp", 443}, {"tcp", 9468}}
	if got := Ports(); !slices.Equal(got, want) {
		t.Errorf("Ports() = %v, want %v", got, want)
	}
}

func TestPortsOf(t *testing.T) {
	for name, c := range map[string]struct {
		unit string
		want []Port
		bad  bool
	}{
		"a port":           {unit: "[Socket]\nListenStream=80\n", want: []Port{{"tcp", 80}}},
		"an address":       {unit: "ListenDatagram=127.0.0.1:53", want: []Port{{"udp", 53}}},
		"IPv6":             {unit: "ListenStream=[::1]:8443", want: []Port{{"tcp", 8443}}},
		"a unix socket":    {unit: "ListenStream=/run/x.sock\nListenStream=@abstract"},
		"reset, a comment": {unit: "ListenStream=\n# ListenStream=81"},
		"no number":        {unit: "ListenStream=http", bad: true},
		"too large":        {unit: "ListenStream=65536", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := portsOf([]byte(c.unit))
			if (err != nil) != c.bad || !slices.Equal(got, c.want) {
				t.Errorf("portsOf = %v, %v; want %v, an error: %t", got, err, c.want, c.bad)
			}
		})
	}
}
