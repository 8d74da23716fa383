package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"strongroom.example/test/vaulttest"
)

// browser is a Chromium without a window, told what to do in its own protocol over two
// pipes: https://chromedevtools.github.io/devtools-protocol/
type browser struct {
	in      *os.File
	out     *bufio.Reader
	session string
	id      int
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser"} {
		if p, err := exec.LookPath(name); err == nil {
			program = p
		}
	}
	if program == "" {
		t.Skip("no Chromium (apt-get install chromium)")
	}
	theirs, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The front's certificate is of the test's own authority, whose check is another test's.
	cmd := exec.Command(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--ignore-certificate-errors", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	theirOut.Close()
	b := &browser{in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		b.session = ""
		b.do(t, "Browser.close", nil, nil)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		in.Close()
		out.Close()
	})
	var made struct{ TargetID string }
	b.do(t, "Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	var attached struct{ SessionID string }
	b.do(t, "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	return b
}

// do makes one call, and passes over what the browser says of itself meanwhile.
func (b *browser) do(t *testing.T, method string, params map[string]any, into any) {
	t.Helper()
	b.id++
	text, err := json.Marshal(struct {
		ID      int            `json:"id"`
		Session string         `json:"sessionId,omitempty"`
		Method  string         `json:"method"`
		Params  map[string]any `json:"params"`
	}{b.id, b.session, method, params})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.in.Write(append(text, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := b.out.ReadBytes(0)
		if err != nil {
			t.Fatalf("%s: the browser has ended: %v", method, err)
		}
		var said struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(line[:len(line)-1], &said); err != nil {
			t.Fatal(err)
		}
		if said.ID != b.id {
			continue
		}
		if said.Error != nil {
			t.Fatalf("%s: %s", method, said.Error.Message)
		}
		if into != nil {
			if err := json.Unmarshal(said.Result, into); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

func (b *browser) open(t *testing.T, url string) {
	t.Helper()
	b.do(t, "Page.navigate", map[string]any{"url": url}, nil)
}

// js is what an expression is on the page, as text.
func (b *browser) js(t *testing.T, expression string) string {
	t.Helper()
	var got struct {
		Result struct{ Value any }
	}
	b.do(t, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &got)
	return fmt.Sprint(got.Result.Value)
}

// until waits for an expression to be true on the page.
func (b *browser) until(t *testing.T, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for b.js(t, expression) != "true" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never was: %s\nthe page, %s, shows:\n%s", expression, b.js(t, "location.href"), b.js(t, "document.body.innerText"))
		}
	}
}

// fill types into a field, as its page notices it.
func (b *browser) fill(t *testing.T, selector, text string) {
	t.Helper()
	b.until(t, fmt.Sprintf("document.querySelector(%q) !== null", selector))
	b.js(t, fmt.Sprintf("document.querySelector(%q).focus()", selector))
	b.do(t, "Input.insertText", map[string]any{"text": text}, nil)
}

func (b *browser) click(t *testing.T, selector string) {
	t.Helper()
	b.until(t, fmt.Sprintf("document.querySelector(%q) !== null", selector))
	b.js(t, fmt.Sprintf("document.querySelector(%q).click()", selector))
}
