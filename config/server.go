package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Product is whose server it is.
type Product string

// The servers that the appliance runs on.
const (
	ProductVault   Product = "vault"
	ProductOpenBao Product = "openbao"
)

// products is what is known of each.
var products = map[Product]struct {
	name  string // as `version` prints it
	floor string // the oldest version without a known advisory
	// release is what is installed unless told otherwise.
	release string
	// tested are the versions that the project's tests run. Others may work as
	// well; nobody has seen it.
	tested []string
}{
	ProductVault:   {"Vault", VaultFloor, VaultVersion, []string{"1.21.1"}},
	ProductOpenBao: {"OpenBao", "2.7.2", "2.7.2", []string{"2.7.2"}},
}

// Products are the names that vault.product takes.
func Products() []string { return []string{string(ProductVault), string(ProductOpenBao)} }

// String is the product's name as people read it.
func (p Product) String() string { return products[p.Known()].name }

// Known is p, and Vault where nothing was said.
func (p Product) Known() Product {
	if p == "" {
		return ProductVault
	}
	return p
}

// Tested are the versions of it that the project's tests run.
func (p Product) Tested() []string { return products[p.Known()].tested }

// Floor is the oldest version of it without a known advisory.
func (p Product) Floor() string { return products[p.Known()].floor }

// Release is the version of it that is installed unless told otherwise.
func (p Product) Release() string { return products[p.Known()].release }

// Is says whether both are the same; nothing said is Vault.
func (p Product) Is(q Product) bool { return p.Known() == q.Known() }

// Server is a program that speaks Vault's API: whose it is, and which version,
// "1.2.3". Wherever a version is judged, this is it.
type Server struct {
	Product Product
	Version string
}

// String is "Vault 1.21.1".
func (s Server) String() string { return s.Product.String() + " " + s.Version }

// Tested says whether the project's tests ran on it.
func (s Server) Tested() bool {
	for _, v := range s.Product.Tested() {
		if v == s.Version {
			return true
		}
	}
	return false
}

// SameProduct is an error where t is another product's: neither reads the other's
// storage. OpenBao's under Vault even looks like an empty one.
func (s Server) SameProduct(t Server) error {
	if s.Product.Is(t.Product) {
		return nil
	}
	return fmt.Errorf("neither of %s and %s reads the other's storage", s, t)
}

// Old says whether it is below its product's floor. An error: its version is
// none of the form 1.2.3.
func (s Server) Old() (bool, error) {
	c, err := CompareVersions(s.Version, s.Product.Floor())
	return c < 0, err
}

var versionLine = regexp.MustCompile(`^(Vault|OpenBao) v([0-9A-Za-z.+-]+)`)

// ParseServer reads what a server's program prints for "version".
func ParseServer(line string) (Server, error) {
	m := versionLine.FindStringSubmatch(strings.TrimSpace(line))
	if m == nil {
		return Server{}, fmt.Errorf("to \"version\" it says %.60q: it is neither Vault nor OpenBao", line)
	}
	for p, known := range products {
		if known.name == m[1] {
			return Server{p, m[2]}, nil
		}
	}
	return Server{}, fmt.Errorf("%q is no product that is known here", m[1])
}
