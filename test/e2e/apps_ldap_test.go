package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// Only Vault's own account may search, and passwords go over TLS alone.
const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile DIR/server.crt
TLSCertificateKeyFile DIR/server.key
security simple_bind=128
disallow bind_anon
database mdb
suffix dc=example,dc=com
directory DIR/data
dbnosync
maxsize 10485760
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact=cn=vault,dc=example,dc=com read by * none
`

// Alice's group lists names of entries, Bob's lists logins: both kinds are
// common. Carol's group is mapped to nothing; Dave is in none.
const directory = `dn: dc=example,dc=com
objectClass: domain
dc: example

dn: cn=vault,dc=example,dc=com
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: vault
userPassword: vaults-password

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
userPassword: alices-password

dn: uid=bob,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: bobs-password

dn: uid=carol,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
userPassword: carols-password

dn: uid=dave,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: dave
cn: Dave
sn: D
userPassword: daves-password

dn: cn=Data Platform,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: Data Platform
member: uid=alice,ou=people,dc=example,dc=com

dn: cn=data-team,ou=groups,dc=example,dc=com
objectClass: posixGroup
cn: data-team
gidNumber: 2000
memberUid: bob

dn: cn=visitors,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: visitors
member: uid=carol,ou=people,dc=example,dc=com
`

// ldapServer is a real OpenLDAP on loopback, in a folder of its own.
type ldapServer struct {
	tlsPort, plainPort int
	caFile             string // PEM
}

func startLDAP(t *testing.T) *ldapServer {
	t.Helper()
	slapd := "/usr/sbin/slapd"
	if _, err := exec.LookPath(slapd); err != nil {
		missing(t, "OpenLDAP (slapd)")
	}
	// Where the tests are not root, so is the server not.
	cred, uid, gid := serverUser(t, "openldap")
	dir, ca := serverDir(t, uid, gid)
	conf, ldif := filepath.Join(dir, "slapd.conf"), filepath.Join(dir, "directory.ldif")
	for _, f := range []struct{ name, text string }{{conf, strings.ReplaceAll(slapdConf, "DIR", dir)}, {ldif, directory}} {
		if err := os.WriteFile(f.name, []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(f.name, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, uid, gid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if _, err := asServer(ctx, cred, dir, "", "/usr/sbin/slapadd", "-q", "-f", conf, "-l", ldif); err != nil {
		t.Fatal(err)
	}
	s := &ldapServer{tlsPort: freePort(t), plainPort: freePort(t), caFile: ca}
	// -d keeps it in the foreground; "stats" names requests, no passwords.
	startServer(t, cred, dir, slapd, "-d", "stats", "-f", conf, "-h",
		fmt.Sprintf("ldaps://127.0.0.1:%d/ ldap://127.0.0.1:%d/", s.tlsPort, s.plainPort))
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	waitSQL(t, ctx, func(ctx context.Context) error {
		c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.tlsPort)))
		if err != nil {
			return err
		}
		return c.Close()
	})
	return s
}

// People by LDAP, by both ways of TLS, and by a directory whose certificate
// nobody vouches for.
func TestPeopleLDAP(t *testing.T) {
	t.Parallel()
	srv := startLDAP(t)
	otherCA := writeCertificate(t, t.TempDir())
	const maps = `
[[auth.map]]
group = "Data Platform"
roles = ["admin"]
[[auth.map]]
group = "data-team"
roles = ["reader", "owner:b"]
[[auth.map]]
user = "Dave"
roles = ["operator"]
`
	bindPassword := secretFile(t, "vaults-password")
	method := func(path, url, ca, more string) string {
		return fmt.Sprintf(`
[[auth]]
type = "ldap"
path = %q
url = %q
ca_file = %q
bind_dn = "cn=vault,dc=example,dc=com"
bind_password_file = %q
user_dn = "ou=people,dc=example,dc=com"
group_dn = "ou=groups,dc=example,dc=com"
%s`, path, url, ca, bindPassword, more) + maps
	}
	ldaps := fmt.Sprintf("ldaps://127.0.0.1:%d", srv.tlsPort)
	conf := func(more string) string {
		return twoApps + method("ldap", ldaps, srv.caFile, more) +
			// Vault keeps both in lower case, which is no difference.
			method("directory", fmt.Sprintf("ldap://127.0.0.1:%d/DC=Example", srv.plainPort), srv.caFile, "starttls = true\nuser_attr = \"UID\"\n") +
			method("imposter", ldaps, otherCA, "")
	}
	s := newAppSite(t, conf("token_ttl = \"30m\"\ntoken_max_ttl = \"8h\"\n"))
	if out := s.applied(t); strings.Contains(out, "vaults-password") {
		t.Error("the password of Vault's account was printed")
	}
	login := func(path, who, password string) ([]string, error) {
		return s.policiesOf(t, "auth/"+path+"/login/"+who, map[string]any{"password": password})
	}
	for _, path := range []string{"ldap", "directory"} {
		t.Run(path, func(t *testing.T) {
			for _, tt := range []struct {
				who, password string
				want          []string
			}{
				{"alice", "alices-password", []string{"strongroom-admin"}},
				{"Alice", "alices-password", []string{"strongroom-admin"}},
				{"bob", "bobs-password", []string{"strongroom-reader", "b-owner"}},
				{"carol", "carols-password", nil}, // a group that no mapping names
				{"dave", "daves-password", []string{"strongroom-operator"}},
			} {
				t.Run(tt.who, func(t *testing.T) {
					got, err := login(path, tt.who, tt.password)
					wantPolicies(t, got, err, tt.want...)
				})
			}
			for _, tt := range []struct{ name, who, password string }{
				{"wrong password", "alice", "bobs-password"},
				{"no password", "alice", ""},
				{"nobody", "erin", "alices-password"},
				{"any name", "*", "alices-password"},
				{"a filter for a name", "alice)(uid=*", "alices-password"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					if got, err := login(path, tt.who, tt.password); err == nil {
						t.Errorf("%q gets %q", tt.who, got)
					}
				})
			}
		})
	}
	t.Run("imposter", func(t *testing.T) {
		if got, err := login("imposter", "alice", "alices-password"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("with a certificate of another authority: %q, %v", got, err)
		}
	})
	lifetime := func() int {
		got, err := vaulttest.API(s.Client(t, "")).Logical().WriteWithContext(t.Context(), "auth/ldap/login/bob", map[string]any{"password": "bobs-password"})
		if err != nil {
			t.Fatal(err)
		}
		return got.Auth.LeaseDuration
	}
	if n := lifetime(); n != 1800 {
		t.Errorf("bob's token lives %d s", n)
	}
	// What is taken out of the file is taken back, and no longer named is no
	// longer let in.
	s.write(t, conf(""))
	s.applied(t)
	if n := lifetime(); n <= 1800 {
		t.Errorf("without token_ttl bob's token still lives %d s", n)
	}
	s.write(t, replaceAll(t, conf(""), map[string]string{"group = \"Data Platform\"": "group = \"others\""}))
	s.app(t, cli.ExitOK, "apply")
	s.app(t, cli.ExitOK, "prune", "--yes")
	got, err := login("ldap", "alice", "alices-password")
	wantPolicies(t, got, err)
	s.write(t, twoApps)
	s.app(t, cli.ExitOK, "prune", "--yes")
	if got, err := login("ldap", "bob", "bobs-password"); err == nil {
		t.Errorf("after a prune bob still gets %q", got)
	}
}
