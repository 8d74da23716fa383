package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/appliance/watch/metrics"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type metricsOptions struct {
	vault                     vaultAccess
	config, domain            string
	listen                    string
	states, auditLogs         string
	frontAddress, frontSocket string
	mount                     string
	version                   string
}

func metricsCommand(version string) *cobra.Command {
	o := metricsOptions{version: version}
	o.vault.Machine = access.Role{ID: machine.CredMonitorRoleID, Secret: machine.CredMonitorSecretID}
	c := &cobra.Command{
		Use:   "metrics",
		Short: "Tell Prometheus the state of everything, on this machine only",
		Long: `Answers on loopback, at a socket that systemd passes or at --listen:
  /metrics  the certificate, snapshots, drills, the doctor, audit logs, Vault's
            health, the state of keys, and the counts of the front and the engine
  /vault    Vault's own telemetry

It runs until SIGTERM or SIGINT.`,
		Example: "  strongroom metrics --listen 127.0.0.1:9468",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runMetrics(c, o) },
	}
	c.AddCommand(
		printed("rules", "Print alert rules for Prometheus", config.AlertRules),
		printed("dashboard", "Print a dashboard for Grafana", config.GrafanaDashboard),
	)
	f := c.Flags()
	o.vault.add(f)
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file of the appliance, for the domain")
	f.StringVar(&o.domain, "domain", "", "the name under which Vault is reached (default: the configuration's)")
	f.StringVar(&o.listen, "listen", "", "address on loopback to listen on, where systemd passes no socket")
	f.StringVar(&o.states, "states", machine.StateDir, "folder with the jobs' states")
	f.StringVar(&o.auditLogs, "audit-logs", machine.AuditDir, "folder of the audit logs, whose disk is looked at")
	f.StringVar(&o.frontAddress, "front", evidence.FrontAddress, "where the front answers, host:port; empty: there is none")
	f.StringVar(&o.frontSocket, "front-socket", machine.FrontMetrics, "unix socket of the front's metrics; empty: there is none")
	f.StringVar(&o.mount, "mount", machine.MountKeys, "mount of the engine for API keys")
	return c
}

func runMetrics(c *cobra.Command, o metricsOptions) error {
	spareMemory()
	client, err := o.vault.Client()
	if err != nil {
		return err
	}
	ln, err := o.listener()
	if err != nil {
		return err
	}
	defer ln.Close()
	log := daemonLog()
	vault := metrics.NewVault(client, o.mount, o.logIn)
	opts := metrics.Options{
		Version: o.version, Places: evidence.Below(o.states), AuditState: o.states + "/audit", AuditLogs: o.auditLogs,
		FrontSocket: o.frontSocket, Vault: vault, Log: log,
	}
	if o.frontAddress != "" {
		opts.Certificate = func(ctx context.Context) (evidence.Certificate, error) {
			domain, err := o.name()
			if err != nil {
				return evidence.Certificate{}, err
			}
			return evidence.ReadCertificate(ctx, o.frontAddress, domain)
		}
	}
	h, err := metrics.Handler(metrics.New(opts))
	if err != nil {
		return err
	}
	notify(log, daemon.SdNotifyReady)
	go watchdog(c.Context(), log, func(ctx context.Context) error { return answers(ctx, ln.Addr().String()) })
	log.Info("metrics", "address", ln.Addr().String())
	err = metrics.Serve(c.Context(), ln, h)
	notify(log, daemon.SdNotifyStopping)
	end, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), 5*time.Second)
	defer cancel()
	if eerr := vault.End(end); eerr != nil {
		log.Warn("the token stays until it ends by itself", "error", eerr)
	}
	return err
}

// name is the domain. A configuration that can't be read takes only the
// certificate's metrics away, until it can.
func (o *metricsOptions) name() (string, error) {
	if o.domain != "" {
		return o.domain, nil
	}
	data, err := os.ReadFile(o.config)
	if err != nil {
		return "", err
	}
	conf, err := config.Parse(o.config, data)
	if err == nil && conf.Domain == "" {
		err = fmt.Errorf("%q names no domain", o.config)
	}
	return conf.Domain, err
}

// listener is systemd's socket, or one on loopback.
func (o *metricsOptions) listener() (net.Listener, error) {
	inherited, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	switch {
	case len(inherited) > 1 || len(inherited) == 1 && inherited[0] == nil:
		return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("systemd passes %d sockets, want one stream", len(inherited))}
	case len(inherited) == 1 && o.listen != "":
		return nil, &Error{Code: ExitUsage, Err: errors.New("--listen, and a socket from systemd"), Hint: "one of them"}
	case len(inherited) == 1:
		return inherited[0], nil
	case o.listen == "":
		return nil, &Error{Code: ExitUsage, Err: errors.New("no socket"), Hint: "give --listen 127.0.0.1:9468"}
	}
	host, _, err := net.SplitHostPort(o.listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--listen %q is not an address on loopback such as 127.0.0.1:9468", o.listen),
			Hint: "let Prometheus reach it through SSH, a VPN or an exporter proxy that authenticates"}
	}
	return net.Listen("tcp", o.listen)
}

// logIn makes client somebody, for package metrics.
func (o *metricsOptions) logIn(ctx context.Context, client *vaultapi.Client) (func(context.Context) error, error) {
	session, err := o.vault.Login(ctx, client)
	if errors.Is(err, access.ErrNoLogin) {
		err = metrics.ErrNoLogin
	}
	return session.End, err
}

// answers asks the daemon itself.
func answers(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
