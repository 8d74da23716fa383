package migrate

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// list is a kind of file with a secret of somebody on each line: the first group
// is whose, the second the secret.
type list struct {
	name *regexp.Regexp // of the file, in small letters
	kind string
	line *regexp.Regexp
}

const (
	listWord   = `("[^"]*"|\S+)`
	listSecret = `("[^"]+"|[^\s"]+)`
)

// lists are files by their names. Sources: htpasswd(1), pgbouncer.org/config.html#authentication-file-format,
// pppd(8), ipsec.secrets(5), postfix.org/SASL_README.html, redis.io/docs/latest/operate/oss_and_stack/management/security/acl/,
// mount.cifs(8)
var lists = []list{
	{regexp.MustCompile(`\.?htpasswd$`), "htpasswd", regexp.MustCompile(`^([^#:\s]+):(\S{9,})`)},
	{regexp.MustCompile(`^userlist\.txt$`), "userlist", regexp.MustCompile(`^\s*("(?:[^"]|"")*")\s+("(?:[^"]|"")+")`)},
	{regexp.MustCompile(`^(?:chap|pap)-secrets$`), "ppp", regexp.MustCompile(`^\s*([^#\s]\S*)\s+\S+\s+` + listSecret)},
	{regexp.MustCompile(`^(?:.+\.)?ipsec\.(?:.+\.)?secrets$`), "ipsec", regexp.MustCompile(`^([^#]*?)\s*:\s*(?:PSK|EAP|XAUTH|NTLM|PIN|(?:RSA|ECDSA|P12|PKCS8)\s+` + listWord + `)\s+` + listSecret)},
	{regexp.MustCompile(`^sasl_passwd`), "postfix", regexp.MustCompile(`^([^#\s]\S*)\s+[^\s:]+:(\S+)$`)},
	{regexp.MustCompile(`^users?\.acl$`), "redis", regexp.MustCompile(`^\s*user\s+(\S+)\s.*?[\s](?:>|#)(\S+)`)},
	{regexp.MustCompile(`^fstab$`), "fstab", regexp.MustCompile(`^\s*([^#\s]\S*)\s+\S+\s+(?:cifs|smb3|davfs)\s+\S*?\bpass(?:word)?=([^\s,]+)`)},
}

// listOf says what a file is a list of, if it is one.
func listOf(base string) *list {
	for i := range lists {
		if lists[i].name.MatchString(base) {
			return &lists[i]
		}
	}
	return nil
}

// look notes whose secrets they are.
func (s *list) look(l *lookup) {
	l.eachLine(func(n int, line string) {
		m := s.line.FindStringSubmatch(line)
		if m == nil {
			return
		}
		what, value := "is a password", strings.Trim(m[len(m)-1], `"`)
		switch {
		case s.kind == "htpasswd", hashed.MatchString(value):
			what = "is a hash of a password"
		case placeholder(name{words: []string{"PASSWORD"}}, value) != "":
			return
		}
		whose := strings.Trim(m[1], `" `)
		if whose == "" {
			whose = "all"
		}
		l.note(n, "password of "+whose, []string{what}, "name")
		l.search(n, "password of "+whose, value)
	})
}

var (
	// hashed is how programs keep a password of which they know the hash alone.
	hashed = regexp.MustCompile(`^(?:md5[0-9a-f]{32}|SCRAM-SHA-256\$|\{[A-Z0-9]+\}|\$\w+\$)`)
	// userHash is a user with such a hash, as htpasswd writes it, in any text; a label
	// of compose writes each dollar twice.
	// Sources: crypt(5), doc.traefik.io/traefik/middlewares/http/basicauth/
	userHash = regexp.MustCompile("(?:^|[\\s\"'`=,;|\\[(])([A-Za-z0-9._@+-]{1,64}):(?:\\$\\$?(?:apr1|1|2[abxy]|5|6|7|y|gy)\\$\\$?[./A-Za-z0-9$=]{20,}|\\{S{1,2}HA\\d*\\}[A-Za-z0-9+/=]{20,})")
)

// hashes notes users with the hashes of their passwords, which are guessed at offline.
func (l *lookup) hashes(n int, line []byte) {
	if !bytes.Contains(line, []byte(":$")) && !bytes.Contains(line, []byte(":{S")) {
		return
	}
	for _, m := range userHash.FindAllSubmatch(line, -1) {
		l.note(n, "password of "+string(m[1]), []string{"is a hash of a password"}, "hash")
	}
}

// isKubeconfig knows the configuration of kubectl by its content: it has many names.
func isKubeconfig(data []byte) bool {
	head := data[:min(len(data), sniff)]
	return bytes.Contains(head, []byte("apiVersion: v1")) && (bytes.Contains(data, []byte("\nkind: Config\n")) || bytes.HasPrefix(data, []byte("kind: Config\n")))
}

// wholeFile ends the names of files that may be nothing but a secret.
var wholeFile = set(".txt .secret .password .pass .passwd .token .credential")

// whole looks at a file that is nothing but a value, under the name of a secret: as
// those are that compose, systemd and Kubernetes hand to a program.
func (l *lookup) whole() {
	base, ext := path.Base(l.src.path), strings.ToLower(path.Ext(l.src.path))
	if ext != "" && !wholeFile[ext] && ext != base {
		return
	}
	text := strings.TrimRight(string(l.src.data), "\r\n")
	if len(text) == 0 || len(text) > maxToken || strings.ContainsAny(text, " \t\r\n") {
		return
	}
	named := strings.TrimLeft(base, ".")
	if n := parseName(strings.TrimSuffix(named, ext)); n.class != nameSecret && !wholeFile["."+strings.ToLower(named)] {
		return
	} else if placeholder(n, text) != "" || location.MatchString(text) {
		return
	}
	l.note(1, "", []string{"is a secret by the name of its file"}, "name")
	l.search(1, "", text)
}

// assigned is a variable as a .env file has it, at the beginning of a line.
var assigned = regexp.MustCompile(`^(?:export[ \t]+)?([A-Z][A-Z0-9_]*)=("[^"]*"|'[^']*'|[^\s"']+)\s*$`)

// assignments looks for variables in a file of which nothing else is known, by any
// name. It may be a text for people: a name alone is not enough.
func (l *lookup) assignments() {
	l.eachLine(func(n int, line string) {
		if m := assigned.FindStringSubmatch(line); m != nil && len(line) < maxToken {
			l.name(n, m[1], unquote(m[2]))
		}
	})
}
