package front

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"github.com/hetznercloud/hcloud-go/v2/hcloud/exp/zoneutil"
	"github.com/libdns/libdns"
)

const hetznerID = "dns.providers.strongroom_hetzner"

// hetznerDNS sets and removes the TXT records of DNS-01 in a zone of Hetzner
// Cloud (https://docs.hetzner.cloud/reference/cloud#zone-rrset-actions). The
// token is read from its file for each challenge, so that it can be replaced,
// and is in no configuration.
type hetznerDNS struct {
	TokenFile string `json:"token_file"`
	Endpoint  string `json:"endpoint,omitempty"`
}

var (
	_ certmagic.DNSProvider = (*hetznerDNS)(nil)
	_ caddy.Module          = (*hetznerDNS)(nil)
)

// CaddyModule names the module.
func (*hetznerDNS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: hetznerID, New: func() caddy.Module { return new(hetznerDNS) }}
}

// AppendRecords adds recs to the zone and leaves what others have put there.
func (h *hetznerDNS) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, h.each(ctx, zone, recs, func(c *hcloud.Client, set *hcloud.ZoneRRSet) (*hcloud.Action, error) {
		a, _, err := c.Zone.AddRRSetRecords(ctx, set, hcloud.ZoneRRSetAddRecordsOpts{Records: set.Records, TTL: set.TTL})
		return a, err
	})
}

// DeleteRecords removes exactly recs. Those that are gone already are no error.
func (h *hetznerDNS) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return recs, h.each(ctx, zone, recs, func(c *hcloud.Client, set *hcloud.ZoneRRSet) (*hcloud.Action, error) {
		a, _, err := c.Zone.RemoveRRSetRecords(ctx, set, hcloud.ZoneRRSetRemoveRecordsOpts{Records: set.Records})
		if hcloud.IsError(err, hcloud.ErrorCodeNotFound) {
			return nil, nil
		}
		return a, err
	})
}

func (h *hetznerDNS) each(ctx context.Context, zone string, recs []libdns.Record, change func(*hcloud.Client, *hcloud.ZoneRRSet) (*hcloud.Action, error)) error {
	token, err := os.ReadFile(h.TokenFile)
	if err != nil {
		return fmt.Errorf("hetzner dns: token: %w", err)
	}
	opts := []hcloud.ClientOption{hcloud.WithToken(strings.TrimSpace(string(token))), hcloud.WithApplication("strongroom", "")}
	if h.Endpoint != "" {
		opts = append(opts, hcloud.WithEndpoint(h.Endpoint))
	}
	c := hcloud.NewClient(opts...)
	name := strings.TrimSuffix(zone, ".")
	for _, rec := range recs {
		rr := rec.RR()
		if rr.Type != string(hcloud.ZoneRRSetTypeTXT) {
			return fmt.Errorf("hetzner dns: %s record %q: only TXT records are set", rr.Type, rr.Name)
		}
		set := &hcloud.ZoneRRSet{
			Zone: &hcloud.Zone{Name: name}, Name: rr.Name, Type: hcloud.ZoneRRSetTypeTXT,
			Records: []hcloud.ZoneRRSetRecord{{Value: zoneutil.FormatTXTRecord(rr.Data)}},
		}
		if ttl := int(rr.TTL.Seconds()); ttl > 0 {
			set.TTL = &ttl
		}
		action, err := change(c, set)
		if err == nil && action != nil {
			err = c.Action.WaitFor(ctx, action)
		}
		if hcloud.IsError(err, hcloud.ErrorCodeNotFound) {
			err = errors.Join(err, fmt.Errorf("is the zone %q in the project of this token?", name))
		}
		if err != nil {
			return fmt.Errorf("hetzner dns: %s.%s: %w", rr.Name, name, err)
		}
	}
	return nil
}
