package front

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// hidden are fields that Vault tells anybody and nobody outside needs: how much is
// written, which cluster it is, and, where the server redacts nothing itself, which
// version and where. By the path below sys/.
var hidden = map[string][]string{
	"leader":      {"raft_committed_index", "raft_applied_index", "leader_address", "leader_cluster_address"},
	"seal-status": {"cluster_id", "cluster_name", "version", "build_date", "commit_date"},
	"health":      {"cluster_id", "cluster_name", "version"},
}

// lastOfSys is what follows the last "/sys/" of a path, which may stand behind a
// namespace.
func lastOfSys(path string) string {
	if i := strings.LastIndex(path, "/sys/"); i >= 0 {
		return path[i+len("/sys/"):]
	}
	return ""
}

// serveHiding answers as Vault does, with these fields emptied.
func serveHiding(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, fields []string) error {
	kept := &answer{header: w.Header()}
	if err := next.ServeHTTP(kept, r); err != nil {
		return err
	}
	if kept.status == statusGone {
		return context.Canceled
	}
	body := kept.body.Bytes()
	var all map[string]json.RawMessage
	if json.Unmarshal(body, &all) == nil {
		for _, f := range fields {
			switch v, ok := all[f]; {
			case ok && bytes.HasPrefix(v, []byte{'"'}):
				all[f] = json.RawMessage(`""`)
			default:
				delete(all, f)
			}
		}
		var err error
		if body, err = json.Marshal(all); err != nil {
			return err
		}
		body = append(body, '\n')
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(max(kept.status, http.StatusOK))
	_, _ = w.Write(body) // an error means that the client has gone, and the recorder knows
	return nil
}

// answer is one that is kept until it is whole.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}
