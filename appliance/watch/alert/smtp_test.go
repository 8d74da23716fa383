package alert

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// mailServer is a small SMTP server (RFC 5321) on loopback.
type mailServer struct {
	addr   string
	caFile string

	// What it is like.
	implicitTLS, noStartTLS bool
	auth                    string // mechanisms offered after TLS
	user, password          string
	refuse                  map[string]string // verb → answer, as often as refuseTimes
	refuseTimes             int

	mu       sync.Mutex
	got      []gotMail
	sessions int
	clear    []string // what came before TLS
}

type gotMail struct {
	from string
	to   []string
	data string
	tls  bool
	user string
}

func startMail(t *testing.T, s *mailServer) {
	t.Helper()
	cert, pemText := selfSigned(t)
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.caFile, pemText, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				s.serve(conn, conf)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// serve is one session.
func (s *mailServer) serve(conn net.Conn, conf *tls.Config) {
	s.mu.Lock()
	s.sessions++
	s.mu.Unlock()
	secure := false
	if s.implicitTLS {
		conn, secure = tls.Server(conn, conf), true
	}
	r := bufio.NewReader(conn)
	say := func(format string, args ...any) { fmt.Fprintf(conn, format+"\r\n", args...) }
	line := func() (string, bool) {
		l, err := r.ReadString('\n')
		if err == nil && !secure {
			s.mu.Lock()
			s.clear = append(s.clear, l)
			s.mu.Unlock()
		}
		return strings.TrimRight(l, "\r\n"), err == nil
	}
	var m gotMail
	say("220 mail ESMTP")
	for {
		l, ok := line()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(l, " ")
		verb = strings.ToUpper(verb)
		s.mu.Lock()
		answer, refuse := s.refuse[verb]
		if refuse = refuse && s.refuseTimes > 0; refuse {
			s.refuseTimes--
		}
		s.mu.Unlock()
		if refuse {
			say("%s", answer)
			continue
		}
		switch verb {
		case "EHLO":
			say("250-mail")
			if !secure && !s.noStartTLS {
				say("250-STARTTLS")
			}
			if secure && s.auth != "" {
				say("250-AUTH %s", s.auth)
			}
			say("250 8BITMIME")
		case "STARTTLS":
			say("220 go ahead")
			conn, secure = tls.Server(conn, conf), true
			r = bufio.NewReader(conn)
		case "AUTH":
			m.user = s.login(rest, say, line)
			if m.user == "" {
				say("535 5.7.8 authentication failed")
				continue
			}
			say("235 welcome")
		case "MAIL":
			m.from = between(rest)
			say("250 ok")
		case "RCPT":
			m.to = append(m.to, between(rest))
			say("250 ok")
		case "DATA":
			say("354 send")
			var b strings.Builder
			for {
				l, ok := line()
				if !ok {
					return
				}
				if l == "." {
					break
				}
				b.WriteString(strings.TrimPrefix(l, ".") + "\n")
			}
			m.data, m.tls = b.String(), secure
			s.mu.Lock()
			s.got = append(s.got, m)
			s.mu.Unlock()
			say("250 queued")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 what?")
		}
	}
}

// login answers the user's name, or "".
func (s *mailServer) login(rest string, say func(string, ...any), line func() (string, bool)) string {
	user, password := "", ""
	mechanism, first, _ := strings.Cut(rest, " ")
	switch mechanism {
	case "PLAIN":
		if parts := strings.Split(decode(first), "\x00"); len(parts) == 3 {
			user, password = parts[1], parts[2]
		}
	case "LOGIN":
		for _, q := range []struct {
			question string
			into     *string
		}{{"Username:", &user}, {"Password:", &password}} {
			say("334 %s", base64.StdEncoding.EncodeToString([]byte(q.question)))
			l, _ := line()
			*q.into = decode(l)
		}
	}
	if user != s.user || password != s.password {
		return ""
	}
	return user
}

func decode(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

func between(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}
