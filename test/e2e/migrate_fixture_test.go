package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The tokens are made up, and put together here so that no scanner of this
// repository takes them for real ones.
var (
	fakeGitHub = "gh" + "p_" + "8wHk3VzYq0LmN5RbTxJc7GdFuPsEa2QiXo91"
	fakeAWSID  = "AK" + "IAZ5GNQ7WPLR2XTUVB"
	fakeStripe = "sk_" + "live_" + "51Hq8Zr2Lw0Xv6Kt9Bn3Yc1Dm"
	fakeSlack  = "xox" + "b-" + "123456789012-1234567890123-q8Zr2Lw0Xv6Kt9Bn3Yc1DmPq"
	fakePEM    = "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7\nq8Zr2Lw0Xv6Kt9Bn3Yc1\n-----END PRIVATE " + "KEY-----"
)

// bikeRepository is a realistic repository before its migration: Dagster code,
// a front end, a Go tool, shell, Docker, compose, systemd, CI; three
// environments with forty variables and more, in all the spellings that .env
// files have. It gives the names that must be taken for secrets in production.
func bikeRepository(t *testing.T) (dir string, secrets map[string]string) {
	t.Helper()
	dir = t.TempDir()
	secrets = map[string]string{
		"DATABASE_URL": "postgres://bikes:s3cr3t-Pr0d@db.example:5432/bikes", "REDIS_URL": "redis://:r3d1s-Pr0d@cache:6379/0",
		"DB_PASSWORD": "pa ss#wo\"rd'1", "PROVIDER_A_API_KEY": "q8Zr2Lw0Xv6Kt9Bn3Yc1", "PROVIDER_B_API_KEY": "Yc1Dm4Pq7St0Uv3Wx6",
		"AWS_ACCESS_KEY_ID": fakeAWSID, "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCY0aZ9bQ2k7Lm",
		"GITHUB_TOKEN": fakeGitHub, "STRIPE_KEY": fakeStripe, "SLACK_BOT_TOKEN": fakeSlack, "SIGNING_KEY": fakePEM,
		"JWT_SECRET": "line one\nline two $HOME", "SMTP_PASSWORD": "p@ss=with=equals", "SENTRY_DSN": "https://abc123:def456@sentry.example/1",
		"REPORT_DATABASE_URL": "postgres://bikes:s3cr3t-Pr0d@db.example:5432/bikes?options=report", "SESSION_SALT": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
	}
	write := func(name, text string, mode os.FileMode) {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	// Windows line ends, a byte order mark, every kind of quote.
	production := "\ufeff# production\r\n" +
		"APP_ENV=production\r\nLOG_LEVEL=info # or debug\r\n" +
		"export DATABASE_URL=" + secrets["DATABASE_URL"] + "\r\n" +
		"REPORT_DATABASE_URL=${DATABASE_URL}?options=report\r\n" +
		"REDIS_URL='" + secrets["REDIS_URL"] + "'\r\n\r\n" +
		`DB_PASSWORD="pa ss#wo\"rd'1"   # do not share` + "\r\n" +
		"DB_HOST=db.example\r\nDB_PORT=5432\r\n"
	production += strings.Join([]string{
		"PROVIDER_A_API_KEY=" + secrets["PROVIDER_A_API_KEY"], "PROVIDER_B_API_KEY = " + secrets["PROVIDER_B_API_KEY"],
		"PROVIDER_A_URL=https://api.provider-a.example/v2", "AWS_REGION=eu-central-1", "AWS_ACCESS_KEY_ID=" + fakeAWSID,
		"AWS_SECRET_ACCESS_KEY=" + secrets["AWS_SECRET_ACCESS_KEY"], "GITHUB_TOKEN=" + fakeGitHub, "STRIPE_KEY=" + fakeStripe,
		"SLACK_BOT_TOKEN=" + fakeSlack, "SIGNING_KEY=\"" + fakePEM + "\"", `JWT_SECRET="line one\nline two $HOME"`, "SMTP_HOST=smtp.example",
		"SMTP_PASSWORD=p@ss=with=equals", "SENTRY_DSN=" + secrets["SENTRY_DSN"], "SESSION_SALT=" + secrets["SESSION_SALT"], "TOKEN_TTL=3600", "FEATURE_X=true",
	}, "\n") + "\n"
	write(".env.production", production, 0o600)
	for _, env := range []string{"staging", "development"} {
		short := env[:4]
		write(".env."+env, strings.Join([]string{
			"# " + env, "APP_ENV=" + env, "LOG_LEVEL=debug", "DATABASE_URL=postgres://bikes:" + short + "-pw-1@localhost/bikes",
			"PROVIDER_A_API_KEY='" + short + "Lw0Xv6Kt9Bn3Yc1'", "", "AWS_ACCESS_KEY_ID=" + fakeAWSID, "AWS_SECRET_ACCESS_KEY=" + short + "rXUtnFEMI/K7MDENG+bPxRfiCY0aZ9bQ2k7Lm",
			"JWT_SECRET=" + short + "-jwt-s3cret", "SMTP_PASSWORD=" + short + "-mail-1", "DB_PORT=5432", "FEATURE_X=false", "GITHUB_TOKEN=" + fakeGitHub,
		}, "\n"), 0o640)
	}
	write(".env.example", "DATABASE_URL=postgres://user:password@host/db\nPROVIDER_A_API_KEY=changeme\n", 0o644)
	write("bikes/settings.py", `"""Settings.

>>> os.environ["NOT_A_USE"]
"""
from __future__ import annotations

import os
from os import getenv

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DATABASE_URL = os.environ["DATABASE_URL"]
REDIS = os.environ.get("REDIS_URL", "redis://localhost")
TOKEN = os.getenv("GITHUB_TOKEN")
KEY = getenv(
    "PROVIDER_A_API_KEY",
)
# os.environ["ALSO_NOT_A_USE"]
HAS_SALT = "SESSION_SALT" in os.environ
LOG_LEVEL = os.environ.get("LOG_LEVEL", "info")


class Mail(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SMTP_")

    host: str = "localhost"
    password: str
    dsn: str = Field(
        default="",
        validation_alias="SENTRY_DSN",
    )
`, 0o644)
	write("bikes/definitions.py", "import dagster as dg\n\nresource = dg.ConfigurableResource\nkey = dg.EnvVar(\"PROVIDER_B_API_KEY\")\nport = dg.EnvVar.int(\"DB_PORT\")\n", 0o644)
	write("dagster.yaml", "storage:\n  postgres:\n    postgres_db:\n      password:\n        env: DB_PASSWORD\n", 0o644)
	write("web/src/api.ts", "// process.env.NOT_A_USE\nexport const key = process.env.STRIPE_KEY;\nconst { SLACK_BOT_TOKEN, APP_ENV: mode } = process.env;\nexport const u = process.env[\"PROVIDER_A_URL\"] + mode + SLACK_BOT_TOKEN;\n", 0o644)
	write("tools/sync/main.go", "package main\n\nimport \"os\"\n\n// os.Getenv(\"NOT_A_USE\")\nfunc main() { println(os.Getenv(\"AWS_SECRET_ACCESS_KEY\")); _, _ = os.LookupEnv(\"AWS_ACCESS_KEY_ID\") }\n", 0o644)
	write("scripts/deploy.sh", "#!/bin/sh\nset -eu\nTARGET=web\n# $NOT_A_USE\ncurl -H \"Authorization: $JWT_SECRET\" \"https://$DB_HOST/${TARGET}\"\n", 0o755)
	write("Dockerfile", "FROM python:3.12\nARG GITHUB_TOKEN\nENV APP_ENV=production LOG_LEVEL=info\nRUN pip install git+https://$GITHUB_TOKEN@github.com/x/y\n", 0o644)
	write("docker-compose.yml", "services:\n  web:\n    image: x\n    env_file:\n      - .env.development\n    environment:\n      DATABASE_URL: ${DATABASE_URL}\n      TZ: UTC\n  cache:\n    image: redis\n    environment:\n      - REDIS_PASSWORD=in-the-compose-file-1\n      - SESSION_SALT\n", 0o644)
	write("deploy/bikes.service", "[Service]\nEnvironmentFile=-/etc/bikes/env\nEnvironment=LOG_LEVEL=warn \"MODE=a b\"\nExecStart=/usr/bin/bikes --dsn ${SENTRY_DSN}\n", 0o644)
	write(".github/workflows/ci.yml", "on: push\njobs:\n  test:\n    env:\n      LOG_LEVEL: debug\n    steps:\n      - run: pytest\n        env:\n          KEY: ${{ secrets.PROVIDER_A_API_KEY }}\n", 0o644)
	write("node_modules/x/index.js", "process.env.NOT_A_USE\n", 0o644)
	write("data/blob.py", "os.environ['NOT_A_USE']\x00\x01", 0o644)
	write("data/latin1.py", "# caf\xe9\nimport os\nX = os.environ['APP_ENV']\n", 0o644)
	if err := os.Symlink("..", filepath.Join(dir, "bikes", "loop")); err != nil {
		t.Fatal(err)
	}
	return dir, secrets
}

// commitAll makes a git repository of dir, with everything in its history.
func commitAll(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "-A", "-f"}, {"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "first"},
	} {
		c := exec.Command("git", append([]string{"-C", dir, "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v %s", args[0], err, out)
		}
	}
}

// fileTree is every file below dir with its mode and bytes, but for what a skip
// begins.
func fileTree(t *testing.T, dir string, skip ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		for _, s := range skip {
			if rel == s || strings.HasPrefix(rel, s+"/") {
				return nil
			}
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[rel] = fmt.Sprintf("%v %s", info.Mode(), data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
