package front

import (
	"encoding/xml"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// knownH2 are what golang.org/x/net/http2 does otherwise than RFC 9113 has it, and why
// that harms nobody.
var knownH2 = map[string]string{
	"http2/4.2: Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE":                          "it takes frames of 1 MiB and says so, which the case does not read; the header is refused by its size",
	"http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                            "it closes the connection: no client sends one setting twice in a frame",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific header field":                       "it answers 400 in place of resetting the stream",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "it answers 400 in place of resetting the stream",
}

// HTTP/2 as its conformance suite has it (https://github.com/summerwind/h2spec): a case
// that fails and is not known, or is known and passes, fails this.
func TestH2Spec(t *testing.T) {
	bin := tool(t, "h2spec")
	c := baseConfig(t, newBackend(t, http.HandlerFunc(echo)))
	c.Limits.RequestsPerSecond = 0 // it is not what is looked at
	f := startFront(t, c)
	host, port, err := net.SplitHostPort(f.config.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	// Its exit code says that some have failed, the report which.
	out, runErr := exec.CommandContext(t.Context(), bin, "--host", host, "--port", port, "--tls", "--insecure", "--path", "/v1/secret/data/x", "--timeout", "2", "--junit-report", report).CombinedOutput()
	var suites struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(readFile(t, report), &suites); err != nil {
		t.Fatalf("%v\n%v\n%s", err, runErr, out)
	}
	failed, cases := map[string]bool{}, 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			cases++
			if c.Failure != nil || c.Error != nil {
				failed[s.Package+": "+c.Name] = true
			}
		}
	}
	if cases < 140 {
		t.Fatalf("only %d cases ran\n%s", cases, out)
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if knownH2[name] == "" {
			t.Errorf("fails: %s", name)
		}
	}
	for name := range knownH2 {
		if !failed[name] {
			t.Errorf("is known to fail, and passes: %s", name)
		}
	}
}
