package doctor

import (
	"context"
	"crypto/tls"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/watch/evidence"
)

// spoilt is a machine, its front and its Vault of which one answer is not given,
// or is given and holds nothing.
type spoilt struct {
	*box
	asked map[string]bool // every question, by what was looked at
	bad   string          // the one that is spoilt
	deny  bool            // by a refusal; else it comes and is empty
}

var (
	_ Machine = (*spoilt)(nil)
	_ Front   = (*spoilt)(nil)
	_ Vault   = (*spoilt)(nil)
)

// spoil answers for one question: whether it is the spoilt one, and its error.
func (s *spoilt) spoil(kind string, what ...string) (bool, error) {
	q := kind + " " + strings.Join(what, " ")
	s.asked[q] = true
	if q != s.bad {
		return false, nil
	}
	if s.deny {
		return true, &fs.PathError{Op: kind, Path: q, Err: fs.ErrPermission}
	}
	return true, nil
}

func spoiltOr[T any](s *spoilt, empty T, real func() (T, error), kind string, what ...string) (T, error) {
	if bad, err := s.spoil(kind, what...); bad {
		return empty, err
	}
	return real()
}

func (s *spoilt) ReadFile(p string) ([]byte, error) {
	return spoiltOr(s, nil, func() ([]byte, error) { return s.box.ReadFile(p) }, "read", p)
}

func (s *spoilt) Stat(p string) (Info, error) {
	bad, err := s.spoil("stat", p)
	switch {
	case bad && err == nil:
		return Info{}, fs.ErrNotExist
	case bad:
		return Info{}, err
	}
	return s.box.Stat(p)
}

func (s *spoilt) ReadDir(p string) ([]string, error) {
	return spoiltOr(s, nil, func() ([]string, error) { return s.box.ReadDir(p) }, "readdir", p)
}

func (s *spoilt) Sum(p string) (string, error) {
	return spoiltOr(s, "", func() (string, error) { return s.box.Sum(p) }, "sum", p)
}

func (s *spoilt) Run(ctx context.Context, args ...string) ([]byte, error) {
	return spoiltOr(s, nil, func() ([]byte, error) { return s.box.Run(ctx, args...) }, "run", args...)
}

func (s *spoilt) Stream(ctx context.Context, to io.Writer, args ...string) error {
	if bad, err := s.spoil("run", args...); bad {
		return err
	}
	return s.box.Stream(ctx, to, args...)
}

func (s *spoilt) Hello(ctx context.Context, name string, lowest, highest uint16) (tls.ConnectionState, error) {
	return spoiltOr(s, tls.ConnectionState{}, func() (tls.ConnectionState, error) { return s.box.Hello(ctx, name, lowest, highest) }, "hello", tls.VersionName(highest))
}

func (s *spoilt) Get(ctx context.Context, name, p string) (Answer, error) {
	return spoiltOr(s, Answer{}, func() (Answer, error) { return s.box.Get(ctx, name, p) }, "get", p)
}

func (s *spoilt) Health(ctx context.Context) (evidence.Health, error) {
	return spoiltOr(s, evidence.Health{}, func() (evidence.Health, error) { return s.box.Health(ctx) }, "vault", "health")
}

func (s *spoilt) Keys(ctx context.Context, mount string) (evidence.Keys, error) {
	return spoiltOr(s, evidence.Keys{}, func() (evidence.Keys, error) { return s.box.Keys(ctx, mount) }, "vault", "keys")
}

func (s *spoilt) Read(ctx context.Context, p string, query map[string][]string) (map[string]any, error) {
	return spoiltOr(s, nil, func() (map[string]any, error) { return s.box.Read(ctx, p, query) }, "vault", "read", p)
}

func (s *spoilt) List(ctx context.Context, p string) ([]string, error) {
	return spoiltOr(s, nil, func() ([]string, error) { return s.box.List(ctx, p) }, "vault", "list", p)
}

func (s *spoilt) Token(ctx context.Context, accessor string) (map[string]any, error) {
	return spoiltOr(s, nil, func() (map[string]any, error) { return s.box.Token(ctx, accessor) }, "vault", "token", accessor)
}

// mayBeEmpty is what says something by being empty or not there, and why.
var mayBeEmpty = []struct{ item, asked, why string }{
	{"", "read /run/systemd/container", "no container"},
	{"", "stat /etc/vault.d", "it must not be there"},
	{"", "stat /etc/vault", "it must not be there"},
	{"", "stat /opt/vault", "it must not be there"},
	{"", "stat /etc/strongroom/credentials/root-token", "it must not be there"},
	{"swap", "read /etc/fstab", "nothing is mounted"},
	{"swap", "read /etc/systemd/zram-generator.conf", "it is empty, so that there is none"},
	{"swap", "read /usr/lib/systemd/zram-generator.conf", "the same"},
	{"ssh", "readdir /etc/ssh/sshd_config.d", "there are no more files"},
	{"ssh", "read /etc/ssh/sshd_config", "it has no Match block"},
	{"ssh", "stat /etc/ssh/sshd_config", "its defaults, which sshd -T tells"},
	{"file-modes", "readdir /var/lib/strongroom/escrow", "the escrow is kept elsewhere alone"},
	{"file-modes", "stat /var/lib/strongroom/escrow", "a file that has just gone"},
	{"file-modes", "stat /var/lib/systemd/credential.secret", "credentials are sealed with a TPM"},
	{"cleartext", "read ", "no secret is in it"},
	{"cleartext", "readdir /etc/", "the folder has no files"},
	{"cleartext", "stat /etc/", "a file that has just gone"},
	{"shell-history", "read /root/", "no history"},
	{"shell-history", "read /home/", "no history"},
	{"leaks", "read /proc/", "a process that has ended, or the kernel's own"},
	{"root-token", "vault token gone", "a token that has ended"},
	{"tokens", "vault token gone", "a token that has ended"},
	{"user-lockout", "vault list sys/quotas/rate-limit", "there is to be none"},
	{"units", "run systemctl list-units", "no unit has failed"},
	{"drift", "read /var/lib/strongroom/restore", "no restore"},
}

func emptyIsWell(item, asked string) bool {
	for _, m := range mayBeEmpty {
		if (m.item == "" || m.item == item) && strings.HasPrefix(asked, m.asked) {
			return true
		}
	}
	return false
}

// Whatever an item asks for and is refused keeps it from passing; so does what
// comes and holds nothing, but for what says something by it.
func TestNothingUnseenPasses(t *testing.T) {
	for _, c := range checks() {
		t.Run(c.id, func(t *testing.T) {
			b, s := healthy(t)
			alone := func(bad string, deny bool) (Item, []string) {
				w := &spoilt{box: b, asked: map[string]bool{}, bad: bad, deny: deny}
				s.Machine, s.Front, s.Vault = w, w, w
				return examineOne(t, *s, c.id), slices.Sorted(maps.Keys(w.asked))
			}
			i, asked := alone("", false)
			if i.Verdict != evidence.Pass {
				t.Fatalf("%s: %+v", i.Verdict, i.Reasons)
			}
			for _, q := range asked {
				if i, _ := alone(q, true); i.Verdict == evidence.Pass && !strings.HasPrefix(q, "vault token gone") {
					t.Errorf("refused %q, and it passes", q)
				}
				if i, _ := alone(q, false); i.Verdict == evidence.Pass && !emptyIsWell(c.id, q) {
					t.Errorf("nothing came of %q, and it passes", q)
				}
			}
		})
	}
}

func examineOne(t *testing.T, s Subject, id string) Item {
	t.Helper()
	for n, c := range checks() {
		if c.id == id {
			return (&exam{Subject: s}).check(t.Context(), n+1, c)
		}
	}
	t.Fatalf("no item %q", id)
	return Item{}
}
