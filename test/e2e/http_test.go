package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"

	"strongroom.example/test/vaulttest"
)

// get is the status of one GET with the given CA and client certificate.
func get(url, ca, crt, key string) (int, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(ca)
	if err != nil {
		return 0, err
	}
	pool.AppendCertsFromPEM(pem)
	conf := &tls.Config{RootCAs: pool}
	if crt != "" {
		pair, err := tls.LoadX509KeyPair(crt, key)
		if err != nil {
			return 0, err
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	c := http.Client{Timeout: vaulttest.Patience, Transport: &http.Transport{TLSClientConfig: conf}}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-Forwarded-For", "192.0.2.7")
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
