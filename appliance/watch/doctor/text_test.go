package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

func TestPlain(t *testing.T) {
	_, gone := net.Dial("unix", filepath.Join(t.TempDir(), "vault.sock"))
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"a socket that is not there": {fmt.Errorf("log in: %w", gone), "no connection: "},
		"a file that is not there":   {fmt.Errorf("read: %w", fs.ErrNotExist), "not there"},
		"a file of another's":        {fs.ErrPermission, "permission denied"},
		"no rights":                  {&vaultapi.Error{Status: http.StatusForbidden}, "Vault refuses"},
		"sealed":                     {&vaultapi.Error{Status: http.StatusServiceUnavailable}, "Vault answers 503"},
		"anything":                   {errors.New("two\nlines"), "two lines"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := plain(c.err); !strings.HasPrefix(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestFrontThatIsNotThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = HTTPSFront{Address: addr}.Get(t.Context(), "vault.example.com", healthPath)
	if err == nil || !strings.Contains(err.Error(), "ask the front for "+healthPath+": ") || strings.Contains(err.Error(), "https:") {
		t.Errorf("%v", err)
	}
}
