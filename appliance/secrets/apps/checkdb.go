package apps

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"strongroom.example/config"
)

// checkTime bounds the whole check of one role.
const checkTime = time.Minute

// DBCheck is what a check of one database role has found.
type DBCheck struct {
	Role     string   `json:"role"`
	Database string   `json:"database"`
	Access   string   `json:"access"`
	Done     []string `json:"done"`            // what was proved, in order
	Fault    string   `json:"fault,omitempty"` // empty: all is well
	Notes    []string `json:"notes,omitempty"`
}

// server is a database server as the canary speaks to it.
type server interface {
	open(user, password string) (*sql.DB, error)
	// probe uses the access and returns notes for a person; an error is a fault.
	probe(ctx context.Context, db *sql.Conn, r config.DatabaseRole) ([]string, error)
	// refused tells a refused login from a server that can't be reached.
	refused(err error) bool
}

// CheckDB issues credentials of a role, uses them, revokes them, and proves
// that the user is gone: an open session is dead and a new login is refused.
// The caller's token must be allowed to read database/creds/ROLE and to revoke
// the lease. An error is a fault of the check itself; what is wrong with the
// role is in DBCheck.Fault.
func CheckDB(ctx context.Context, v Vault, c config.Apps, r config.DatabaseRole) (DBCheck, error) {
	d, _ := c.Database(r.Database)
	out := DBCheck{Role: r.Name, Database: r.Database, Access: r.Access}
	s, err := serverOf(d)
	if err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if r.Access == config.AccessStatic {
		err = out.static(ctx, v, s, r)
	} else {
		err = out.dynamic(ctx, v, s, r)
	}
	if statement := missingRight(d, r, err); statement != "" {
		err = fault{fmt.Errorf("%w; %s%s", err, runThere, statement)}
	}
	var f fault
	if errors.As(err, &f) {
		out.Fault = f.Error()
		return out, nil
	}
	return out, err
}

// fault is something wrong with the role rather than with the check.
type fault struct{ error }

func (c *DBCheck) did(what string) { c.Done = append(c.Done, what) }

func (c *DBCheck) static(ctx context.Context, v Vault, s server, r config.DatabaseRole) error {
	got, err := v.Read(ctx, "database/static-creds/"+r.Name)
	if err != nil {
		return err
	}
	if got == nil {
		return fault{errors.New("Vault has no such role: run strongroom app apply")}
	}
	c.did("read")
	db, conn, err := connect(ctx, s, text(got, "username"), text(got, "password"))
	if err != nil {
		return loginFault(s, err)
	}
	c.did("logged in")
	if pg, ok := s.(postgresServer); ok {
		if err := pg.rotatable(ctx, conn, r); err != nil {
			return errors.Join(err, conn.Close(), db.Close())
		}
		c.did("rotatable")
	}
	return errors.Join(conn.Close(), db.Close())
}

func (c *DBCheck) dynamic(ctx context.Context, v Vault, s server, r config.DatabaseRole) (err error) {
	lease, err := v.Lease(ctx, "database/creds/"+r.Name)
	if err != nil {
		return err
	}
	c.did("issued")
	revoked := false
	defer func() {
		if !revoked {
			// However the check ends, the user must not stay.
			err = errors.Join(err, revoke(context.WithoutCancel(ctx), v, lease))
		}
	}()
	if lease.Duration > 0 && lease.Duration < r.TTL-time.Minute {
		return fault{fmt.Errorf("vault gives it for %v, and the file says %v: strongroom app apply, on Vault's machine, raises the limit of database/", lease.Duration, r.TTL)}
	}
	user, password := text(lease.Data, "username"), text(lease.Data, "password")
	db, conn, err := connect(ctx, s, user, password)
	if err != nil {
		return loginFault(s, err)
	}
	defer func() { _ = errors.Join(conn.Close(), db.Close()) }() // the session is meant to be dead by then
	c.did("logged in")
	c.Notes, err = s.probe(ctx, conn, r)
	if err != nil {
		return fault{err}
	}
	c.did("used as " + r.Access)
	if err := revoke(ctx, v, lease); err != nil {
		return fault{err}
	}
	revoked = true
	c.did("revoked")
	if err := conn.PingContext(ctx); err == nil {
		return fault{errors.New("a session that was open is still alive after the revocation")}
	}
	c.did("open session ended")
	again, conn2, err := connect(ctx, s, user, password)
	switch {
	case err == nil:
		_ = errors.Join(conn2.Close(), again.Close())
		return fault{errors.New("the user can still log in after the revocation")}
	case !s.refused(err):
		return fmt.Errorf("whether the user is gone can't be told: %w", err)
	}
	c.did("login refused")
	return nil
}

func loginFault(s server, err error) error {
	if s.refused(err) {
		return fault{fmt.Errorf("the credentials that Vault gives don't log in: %w", err)}
	}
	return fmt.Errorf("log in: %w", err)
}

func revoke(ctx context.Context, v Vault, l Lease) error {
	// By its path: that is what an app's owner may, of his own roles.
	if _, err := v.Write(ctx, "sys/leases/revoke/"+l.ID, map[string]any{"sync": true}); err != nil {
		return fmt.Errorf("the revocation fails: %w", err)
	}
	return nil
}

func connect(ctx context.Context, s server, user, password string) (*sql.DB, *sql.Conn, error) {
	db, err := s.open(user, password)
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err == nil {
		if err = conn.PingContext(ctx); err == nil {
			return db, conn, nil
		}
		_ = conn.Close() // the ping's error says more
	}
	return nil, nil, errors.Join(err, db.Close())
}
