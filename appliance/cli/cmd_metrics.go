package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/daemon"
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
	ln, err := daemon.Listener(o.listen, metrics.Listen)
	if errors.Is(err, metrics.ErrNotLoopback) {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--listen %w", err), Hint: "let Prometheus reach it through SSH, a VPN or an exporter proxy that authenticates"}
	}
	if err != nil {
		return socketFault(err, "--listen 127.0.0.1:9468")
	}
	defer ln.Close()
	log := daemon.Log(os.Stderr)
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
	daemon.Ready(log)
	go daemon.Watchdog(c.Context(), log, func(ctx context.Context) error { return metrics.Answers(ctx, ln.Addr().String()) })
	log.Info("metrics", "address", ln.Addr().String())
	err = metrics.Serve(c.Context(), ln, h)
	daemon.Stopping(log)
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
	data, err := config.Read(o.config)
	if err != nil {
		return "", err
	}
	conf, err := config.Parse(o.config, data)
	if err == nil && conf.Domain == "" {
		err = fmt.Errorf("%q names no domain", o.config)
	}
	return conf.Domain, err
}

// logIn makes client somebody, for package metrics.
func (o *metricsOptions) logIn(ctx context.Context, client *vaultapi.Client) (func(context.Context) error, error) {
	session, err := o.vault.Login(ctx, client)
	if errors.Is(err, access.ErrNoLogin) {
		err = metrics.ErrNoLogin
	}
	return session.End, err
}
