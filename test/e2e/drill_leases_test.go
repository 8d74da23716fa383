package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// countingProxy stands before a database and counts who comes.
type countingProxy struct {
	n atomic.Int64
}

// proxyTo passes every connection on to target until the test ends.
func proxyTo(t *testing.T, network, address, targetNetwork, target string) *countingProxy {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	p := &countingProxy{}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			p.n.Add(1)
			go func() {
				defer in.Close()
				out, err := net.Dial(targetNetwork, target)
				if err != nil {
					return
				}
				defer out.Close()
				go func() {
					_, _ = io.Copy(out, in)
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return p
}

// drillLeases: a snapshot with leases that have run out since. A restored Vault
// ends them at once, in the database; the drill's must reach none, neither over
// loopback nor by a unix socket outside the usual folders. That it would try is
// seen from the live Vault, which does so when it is started again.
func drillLeases(t *testing.T, d *drillSite) {
	pg := startPostgres(t)
	pg.admin(t, "CREATE ROLE vault LOGIN SUPERUSER PASSWORD 'a-first-password'")
	ctx, l := t.Context(), vaulttest.API(d.s.Root).Logical()
	socket := fmt.Sprintf(".s.PGSQL.%d", pg.port)
	port := freePort(t)
	proxies := map[string]*countingProxy{
		"tcp":  proxyTo(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port), "tcp", fmt.Sprintf("127.0.0.1:%d", pg.port)),
		"unix": proxyTo(t, "unix", filepath.Join(d.dir, socket), "unix", filepath.Join(pg.dir, socket)),
	}
	if err := vaulttest.API(d.s.Root).Sys().MountWithContext(ctx, "database", &api.MountInput{Type: "database"}); err != nil {
		t.Fatal(err)
	}
	// The leases must outlive the backup: long, where that takes long.
	looked := time.Now()
	d.backup(t)
	ttl := max(9*time.Second, 8*time.Since(looked).Round(time.Second))
	began := time.Now()
	for name, connection := range map[string]map[string]any{
		"tcp":  {"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@127.0.0.1:%d/bikes?sslmode=require", port), "username": "vault", "password": "a-first-password"},
		"unix": {"connection_url": fmt.Sprintf("host=%s port=%d user=postgres dbname=bikes", d.dir, pg.port)},
	} {
		connection["plugin_name"], connection["allowed_roles"] = "postgresql-database-plugin", name
		if _, err := l.WriteWithContext(ctx, "database/config/"+name, connection); err != nil {
			t.Fatal(err)
		}
		if _, err := l.WriteWithContext(ctx, "database/roles/"+name, map[string]any{
			"db_name": name, "default_ttl": ttl.String(), "max_ttl": ttl.String(),
			"creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`,
		}); err != nil {
			t.Fatal(err)
		}
		s, err := l.ReadWithContext(ctx, "database/creds/"+name)
		if err != nil {
			t.Fatal(err)
		}
		d.secrets = append(d.secrets, s.Data["password"].(string))
	}
	d.backup(t)
	if err := d.s.Process.Stop(); err != nil {
		t.Fatal(err)
	}
	users := func() string {
		return strings.TrimSpace(pg.admin(t, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"))
	}
	if n := users(); n != "2" {
		t.Fatalf("%s users before the drill", n)
	}
	<-time.After(time.Until(began.Add(ttl + 2*time.Second)))
	before := map[string]int64{}
	for name, p := range proxies {
		before[name] = p.n.Load()
	}
	d.silent(t, d.drill(t, cli.ExitOK))
	for name, p := range proxies {
		if got := p.n.Load(); got != before[name] {
			t.Errorf("%s: the drill has opened %d connections to the database", name, got-before[name])
		}
	}
	if n := users(); n != "2" {
		t.Errorf("%s users after the drill", n)
	}

	wait, cancel := context.WithTimeout(ctx, vaulttest.Patience)
	defer cancel()
	if err := d.s.SwapVault(wait, vaulttest.Bin(t, "vault")); err != nil {
		t.Fatal(err)
	}
	if err := d.s.WaitActive(wait); err != nil {
		t.Fatal(err)
	}
	for users() != "0" {
		select {
		case <-wait.Done():
			t.Fatalf("not even the live Vault ends the leases: %s users", users())
		case <-time.After(100 * time.Millisecond):
		}
	}
	for name, p := range proxies {
		if p.n.Load() == before[name] {
			t.Errorf("%s: the live Vault did not come this way, so the drill could not have been seen", name)
		}
	}
}
