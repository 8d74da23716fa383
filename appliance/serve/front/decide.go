package front

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"strongroom.example/config"
	"strongroom.example/config/machine"
)

const (
	methodList = "LIST" // Vault's own; https://developer.hashicorp.com/vault/api-docs
	methodScan = "SCAN" // OpenBao's

	// maxDecodes is how many layers of percent-encoding are looked through.
	// Clients use one; whoever stacks more has something to hide.
	maxDecodes = 3
)

// verdict is what becomes of a request: passed on if status is 0.
type verdict struct {
	status int           // HTTP status of the refusal
	text   string        // for the caller and the log; holds nothing of the request
	wait   time.Duration // after which the same request may pass
}

var (
	passed           = verdict{}
	refusedMethod    = verdict{status: http.StatusMethodNotAllowed, text: "this HTTP method is not used by Vault"}
	refusedUnknown   = verdict{status: http.StatusNotFound, text: config.RefusedUnknown}
	refusedSpelled   = verdict{status: http.StatusBadRequest, text: config.RefusedSpelling}
	refusedSystem    = verdict{status: http.StatusForbidden, text: config.RefusedSystem}
	refusedLocal     = verdict{status: http.StatusForbidden, text: config.RefusedLocal}
	refusedHeader    = verdict{status: http.StatusBadRequest, text: "a header of Vault's name that its clients do not send to this path"}
	refusedTwice     = verdict{status: http.StatusBadRequest, text: "more than one header of a kind that Vault reads once"}
	refusedWrap      = verdict{status: http.StatusBadRequest, text: "Vault asks no token at this path, so its answer is not wrapped"}
	refusedValues    = verdict{status: http.StatusBadRequest, text: "too many values in one request"}
	refusedDepth     = verdict{status: http.StatusBadRequest, text: "the request's JSON is nested too deeply"}
	refusedMalformed = verdict{status: http.StatusBadRequest, text: "the request's body is malformed, or not all of it has come"}
	refusedSlow      = verdict{status: http.StatusRequestTimeout, text: "the request's body has not come in time: nothing of it is stored"}
	refusedGone      = verdict{status: http.StatusRequestTimeout, text: "the request was given up before Vault's answer"}
	refusedUnasked   = verdict{status: http.StatusBadRequest, text: "an answer is wrapped for who has a token, or logs in"}
)

// decide judges a request by method, URL and the value of X-Vault-Namespace.
//
// Its promise: if any reading of the path (decoded once or more, cleaned,
// slashes merged, backslashes turned, letters folded, behind a namespace)
// comes to a sys/ path, then the request passes only if the path is spelled
// plainly and the allow-list names it. And none passes of which any reading, with
// the namespace's before it or not, comes to auth/strongroom-local.
func decide(method string, u *url.URL, namespace string, ui bool) verdict {
	v, _ := judge(method, u, namespace, ui)
	return v
}

// target is what a request asks for: the strictest class that any reading of its path
// has, and whether Vault may answer it to anybody all the same.
type target struct {
	class    *class
	readings [][]string // below v1/, in segments
}

// take adds a reading.
func (t *target) take(method string, logical []string) {
	t.readings = append(t.readings, logical)
	if c := classOf(method, logical); t.class == token || c == open {
		t.class = c
	}
}

// mayBeOpen asks for each reading.
func (t target) mayBeOpen(method string) bool {
	return slices.ContainsFunc(t.readings, func(s []string) bool { return mayBeOpen(method, s) })
}

func judge(method string, u *url.URL, namespace string, ui bool) (verdict, target) {
	to := target{class: token}
	v := to.judge(method, u, namespace, ui)
	return v, to
}

func (t *target) judge(method string, u *url.URL, namespace string, ui bool) verdict {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, methodList, methodScan:
	default:
		return refusedMethod
	}
	raw := u.EscapedPath()
	forms, ok := readings(raw, u.Path)
	if !ok {
		return refusedSpelled
	}
	ns, ok := readings(namespace, namespace)
	if !ok {
		return refusedSpelled
	}
	if slices.ContainsFunc(forms, func(f string) bool { return slices.Contains(split(f), "..") }) {
		return refusedSpelled
	}
	system := false
	for _, form := range forms {
		segments := split(form)
		for _, prefix := range ns {
			if local(slices.Concat(split(prefix), segments)) || local(slices.Concat(split(prefix), segments[min(1, len(segments)):])) {
				return refusedLocal
			}
		}
		if len(segments) == 0 || !strings.EqualFold(segments[0], "v1") {
			continue
		}
		logical := segments[1:]
		t.take(method, logical)
		if len(logical) > 0 && strings.EqualFold(logical[0], "sys") {
			system = true
			continue
		}
		if v := judgeNamespaced(method, logical); v != passed {
			return v
		}
		for _, prefix := range ns {
			whole := append(split(prefix), logical...)
			if len(whole) == len(logical) {
				continue
			}
			if v := judgeNamespaced(method, whole); v != passed {
				return v
			}
			t.take(method, whole)
		}
	}
	if system {
		return judgeSystem(method, raw, ns)
	}
	switch {
	case strings.HasPrefix(raw, "/v1/"):
		return passed
	case ui && (raw == "/" || raw == "/ui" || strings.HasPrefix(raw, "/ui/") || raw == "/robots.txt"):
		return passed
	}
	return refusedUnknown
}

// readings gives every way in which some reader might take a path: each layer
// of percent-encoding, with backslashes as they are and as slashes. It is false
// if there is no end to the layers or a control character in one of them.
func readings(forms ...string) ([]string, bool) {
	var out []string
	for _, form := range forms {
		for layer := 0; ; layer++ {
			if strings.ContainsFunc(form, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return nil, false
			}
			out = append(out, form, strings.ReplaceAll(form, `\`, "/"))
			decoded, err := url.PathUnescape(form)
			if err != nil || decoded == form {
				break
			}
			if layer == maxDecodes {
				return nil, false
			}
			form = decoded
		}
	}
	slices.Sort(out)
	return slices.Compact(out), true
}

// split takes a path apart as a reader would that merges slashes and drops
// dots; ".." stays, for decide to refuse.
func split(p string) []string {
	segments := strings.Split(p, "/")
	return slices.DeleteFunc(segments, func(s string) bool { return s == "" || s == "." })
}

// local says whether a path leads to the log-in that is the machine's own, wherever in
// it, so that no namespace hides it. What only begins with its name is refused as well.
func local(segments []string) bool {
	for i, s := range segments {
		if i > 0 && strings.EqualFold(segments[i-1], "auth") && len(s) >= len(machine.AuthLocal) && strings.EqualFold(s[:len(machine.AuthLocal)], machine.AuthLocal) {
			return true
		}
	}
	return false
}

// judgeNamespaced looks for sys/ behind a namespace: "team/sys/init" is
// "sys/init" of namespace "team" to a Vault that has namespaces. A secret in a
// folder "sys" passes unless it bears the name of one of Vault's own paths.
func judgeNamespaced(method string, logical []string) verdict {
	if len(logical) == 0 {
		return passed
	}
	switch strings.ToLower(logical[0]) {
	case "auth", "identity", "cubbyhole", "audit", "root":
		return passed // reserved: these are never names of namespaces
	}
	for i, s := range logical {
		if !strings.EqualFold(s, "sys") || i+1 == len(logical) {
			continue
		}
		name := strings.ToLower(logical[i+1])
		if slices.Contains(systemNames, name) && !allows(method, logical[i+1:], false) {
			return refusedSystem
		}
	}
	return passed
}

// judgeSystem holds a path of sys/ against the allow-list, provided that it is
// spelled so that nobody can take it for another one.
func judgeSystem(method, raw string, namespaces []string) verdict {
	for _, ns := range namespaces {
		for _, s := range split(ns) {
			if strings.EqualFold(s, "sys") || s == ".." {
				return refusedSpelled
			}
		}
	}
	rest, ok := strings.CutPrefix(raw, "/v1/sys/")
	if !ok {
		return refusedSystem
	}
	rest, slash := strings.CutSuffix(rest, "/")
	segments := strings.Split(rest, "/")
	for _, s := range segments {
		d, err := url.PathUnescape(s)
		if err != nil || d == "" || path.Clean(d) != d || d == "." || d == ".." || strings.ContainsAny(d, `/\%`) {
			return refusedSystem
		}
	}
	// The list is compared with the segments as they were sent, so an encoded
	// or differently cased name never equals one of the list's.
	if !allows(method, segments, slash) {
		return refusedSystem
	}
	return passed
}
