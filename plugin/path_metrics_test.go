package apikeys

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestMetricsAreWhatPrometheusReads(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("app/secret-name", nil)
	w.write("rotate/app/secret-name", nil)
	w.read("creds/app/secret-name", map[string]any{"if_version": 2})
	resp := w.read("metrics", nil)
	text := string(resp[logical.HTTPRawBody].([]byte))
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) float64 {
		f := families["vault_apikeys_"+name]
		if f == nil {
			t.Fatalf("%s is missing", name)
		}
		m := f.Metric[0]
		return m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	for name, want := range map[string]float64{
		"keys": 1, "rotations_total": 2, "reads_total": 1, "reads_unchanged_total": 1, "fenced": 0, "clock_believed": 1, "open_intents": 0,
	} {
		if got := value(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if strings.Contains(text, "secret-name") {
		t.Error("a key's name is in the metrics")
	}
}
