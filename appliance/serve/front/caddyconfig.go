package front

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	// The modules that the JSON below names, and no others.
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	"strongroom.example/appliance/base/daemon"
	"strongroom.example/config"
)

const (
	serverHTTPS = "front"
	serverHTTP  = "redirect"

	// A long poll lasts 60 s and Vault ends every request after 90.
	answerTimeout = 100 * time.Second
	bodyTimeout   = 30 * time.Second
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// How long a request waits for a Vault that is being restarted.
	retryDuration = 3 * time.Second
	retryInterval = 100 * time.Millisecond
)

// obj is a piece of Caddy's JSON for which its Go types are unexported or
// awkward.
type obj = map[string]any

// caddyConfig is the whole of Caddy's configuration.
func caddyConfig(c Config, socks sockets) (*caddy.Config, error) {
	off := false
	cfg := &caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: &off}},
		Logging:    logging(),
		StorageRaw: caddyconfig.JSON(obj{"module": "file_system", "root": c.Storage}, nil),
	}
	ports, err := socks.portsOf(c)
	if err != nil {
		return nil, err
	}
	app, err := httpApp(c, socks, ports)
	if err != nil {
		return nil, err
	}
	cfg.AppsRaw = caddy.ModuleMap{
		stateID: caddyconfig.JSON(obj{"dir": c.Storage}, nil),
		"http":  caddyconfig.JSON(app, nil),
		"tls":   caddyconfig.JSON(tlsApp(c, ports), nil),
	}
	if c.Issuer == config.TLSInternal {
		root, inter := withoutRootKey(c)
		cfg.AppsRaw["pki"] = caddyconfig.JSON(caddypki.PKI{CAs: map[string]*caddypki.CA{
			caddypki.DefaultCAID: {Name: "Strongroom", RootCommonName: "Strongroom front root", InstallTrust: &off, Root: root, Intermediate: inter},
		}}, nil)
	}
	return cfg, nil
}

// logging sends everything to standard error as JSON, without request headers
// without queries, where OIDC has its code, and without what looks like a token. Caddy itself logs requests only where
// they fail, and hides fewer headers than Vault's clients fill.
func logging() *caddy.Logging {
	filter := obj{"filter": "regexp", "regexp": tokenShape, "value": "[token]"}
	uri := obj{"filter": "regexp", "regexp": `\?.*|` + tokenShape, "value": "[hidden]"}
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{"retry-after": {Include: []string{issuerID}, BaseLog: caddy.BaseLog{
		Level:      "DEBUG", // for one header, and written nowhere
		WriterRaw:  caddyconfig.JSON(obj{"output": "strongroom_retry_after"}, nil),
		EncoderRaw: caddyconfig.JSON(obj{"format": "json"}, nil),
	}}, "default": {Exclude: []string{
		// The gate has a record of each request, with the fault. The proxy's words would
		// come beside it, as often as a stranger likes.
		"http.handlers.reverse_proxy",
	}, BaseLog: caddy.BaseLog{
		Level:     "INFO",
		WriterRaw: caddyconfig.JSON(obj{"output": "strongroom_journal"}, nil),
		EncoderRaw: caddyconfig.JSON(obj{
			"format": "filter",
			"wrap":   obj{"format": "json", "time_format": "rfc3339_nano"},
			"fields": obj{
				"request>headers": obj{"filter": "delete"},
				"request>uri":     uri,
				"error":           filter,
			},
		}, nil),
	}}}}
}

// journalWriter is standard error, with the journal's priorities.
type journalWriter struct{}

var _ caddy.WriterOpener = journalWriter{}

// CaddyModule names the module.
func (journalWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.strongroom_journal", New: func() caddy.Module { return new(journalWriter) }}
}

// String implements caddy.WriterOpener.
func (journalWriter) String() string { return "stderr" }

// WriterKey implements caddy.WriterOpener.
func (journalWriter) WriterKey() string { return "strongroom:journal" }

// OpenWriter implements caddy.WriterOpener.
func (journalWriter) OpenWriter() (io.WriteCloser, error) {
	return struct {
		io.Writer
		io.Closer
	}{daemon.Journal(os.Stderr), io.NopCloser(nil)}, nil
}

func httpApp(c Config, socks sockets, ports ports) (*caddyhttp.App, error) {
	listen, err := socks.resolve(c.Listen)
	if err != nil {
		return nil, err
	}
	redirect, err := socks.resolve(c.Redirect)
	if err != nil {
		return nil, err
	}
	https := &caddyhttp.Server{
		Listen: listen,
		// Not HTTP/3: what comes in its early data can be sent again by whoever has
		// seen it, in the name of any address.
		Protocols: []string{"h1", "h2"},
		ListenerWrappersRaw: []json.RawMessage{
			caddyconfig.JSON(obj{"wrapper": "strongroom_admit"}, nil), caddyconfig.JSON(obj{"wrapper": "strongroom_hold"}, nil), caddyconfig.JSON(obj{"wrapper": "tls"}, nil),
		},
		TLSConnPolicies: caddytls.ConnectionPolicies{{ProtocolMin: "tls1.2", DefaultSNI: c.Names[0]}},
		Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{
			caddyconfig.JSONModuleObject(gate{
				UI:                c.UI,
				RequestsPerSecond: c.Limits.RequestsPerSecond,
				Burst:             c.Limits.Burst,
				Concurrent:        c.Limits.Concurrent,
				BodyBytes:         c.Limits.BodyBytes,
			}, "handler", "strongroom_gate", nil),
			caddyconfig.JSONModuleObject(proxy(c.Vault), "handler", "reverse_proxy", nil),
		}}},
	}
	app := &caddyhttp.App{
		GracePeriod: caddy.Duration(c.Drain),
		Servers:     map[string]*caddyhttp.Server{serverHTTPS: https},
	}
	if len(redirect) > 0 {
		app.Servers[serverHTTP] = &caddyhttp.Server{
			Listen:              redirect,
			ListenerWrappersRaw: []json.RawMessage{caddyconfig.JSON(obj{"wrapper": "strongroom_admit"}, nil)},
			Protocols:           []string{"h1"},
			Routes:              redirectRoutes(c, ports),
		}
	}
	for _, s := range app.Servers {
		s.Errors = &caddyhttp.HTTPErrorConfig{Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{
			caddyconfig.JSONModuleObject(obj{}, "handler", "strongroom_errors", nil),
		}}}}
		s.ReadHeaderTimeout = caddy.Duration(headerTimeout)
		s.ReadTimeout = caddy.Duration(bodyTimeout)
		s.WriteTimeout = caddy.Duration(answerTimeout)
		s.IdleTimeout = caddy.Duration(idleTimeout)
		s.MaxHeaderBytes = c.Limits.HeaderBytes
		// Certificates and redirects are configured here, not guessed from
		// ports: systemd's sockets have none.
		s.AutoHTTPS = &caddyhttp.AutoHTTPSConfig{Disabled: true}
	}
	return app, nil
}

// redirectRoutes sends plain HTTP to the first name over HTTPS. The name in the
// request is not used: whoever asks for another one would be sent there.
// HTTP-01 challenges are answered by Caddy before any route.
func redirectRoutes(c Config, ports ports) caddyhttp.RouteList {
	host := c.Names[0]
	if port := either(c.ACME.HTTPSPort, ports.https); port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	} else if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]"
	}
	return caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(probe{To: "https://" + host}, "handler", "strongroom_probe", nil),
	}}}
}

// proxy is the way to Vault. It drops what clients say in X-Forwarded-*, since
// no proxy is trusted, and names the connection's address there.
func proxy(v config.FrontVault) *reverseproxy.Handler {
	off := false
	name := v.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(v.Address)
	}
	transport := &reverseproxy.HTTPTransport{
		TLS: &reverseproxy.TLSConfig{
			CARaw:                    caddyconfig.JSON(obj{"provider": "file", "pem_files": []string{v.CAFile}}, nil),
			ClientCertificateFile:    v.CertFile,
			ClientCertificateKeyFile: v.KeyFile,
			ServerName:               name,
		},
		KeepAlive: &reverseproxy.KeepAlive{
			IdleConnTimeout: caddy.Duration(time.Minute), MaxIdleConnsPerHost: 128,
		},
		Compression:           &off,
		DialTimeout:           caddy.Duration(2 * time.Second),
		ResponseHeaderTimeout: caddy.Duration(answerTimeout),
		Versions:              []string{"1.1"},
	}
	return &reverseproxy.Handler{
		TransportRaw: caddyconfig.JSONModuleObject(transport, "protocol", "http", nil),
		Upstreams:    reverseproxy.UpstreamPool{{Dial: v.Address}},
		LoadBalancing: &reverseproxy.LoadBalancing{
			TryDuration: caddy.Duration(retryDuration), TryInterval: caddy.Duration(retryInterval),
		},
	}
}

func tlsApp(c Config, ports ports) *caddytls.TLS {
	app := &caddytls.TLS{DisableStorageClean: false}
	switch c.Issuer {
	case config.TLSFiles:
		app.Automation = &caddytls.AutomationConfig{Policies: []*caddytls.AutomationPolicy{{
			// For every name, that of a client without SNI included.
			IssuersRaw: []json.RawMessage{caddyconfig.JSON(obj{"module": "strongroom_files"}, nil)},
		}}}
	case config.TLSInternal:
		app.CertificatesRaw = caddy.ModuleMap{"automate": caddyconfig.JSON(c.Names, nil)}
		app.Automation = &caddytls.AutomationConfig{Policies: []*caddytls.AutomationPolicy{{
			SubjectsRaw: c.Names,
			IssuersRaw:  []json.RawMessage{caddyconfig.JSON(obj{"module": "internal", "ca": caddypki.DefaultCAID}, nil)},
		}}}
	case config.TLSACME:
		app.CertificatesRaw = caddy.ModuleMap{"automate": caddyconfig.JSON(c.Names, nil)}
		app.Automation = &caddytls.AutomationConfig{Policies: []*caddytls.AutomationPolicy{acmePolicy(c, ports)}}
	}
	return app
}

// encode gives the JSON that Caddy loads.
func encode(cfg *caddy.Config) ([]byte, error) {
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode caddy configuration: %w", err)
	}
	return b, nil
}
