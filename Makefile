# Strongroom. `make demo` shows it, `make test` proves it; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VERSION := $(shell cat VERSION)
# A copy without git history says so; uncommitted changes too.
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD -- 2>/dev/null || echo -dirty)

# The same inputs give the same bytes: no cgo, no paths, no build id.
export CGO_ENABLED := 0
# Programs and tests alike, so that each dependency is compiled once.
export GOFLAGS := -trimpath
# The same bytes whatever the builder's own settings are.
export GOAMD64 := v1
export GOARM64 := v8.0
export GOEXPERIMENT :=
GO_BUILD := go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$(VERSION) -X main.commit=$(COMMIT)"

# GOARCH=arm64 has a folder of its own, and the installer carries the programs of its architecture.
HOST := $(shell go env GOHOSTARCH 2>/dev/null)
ARCH := $(or $(GOARCH),$(HOST))
OUT  := bin$(if $(filter-out $(HOST),$(ARCH)),/$(ARCH))
LOAD := installer/payload/bin/$(ARCH)

# VAULT_BIN=/path/to/vault uses that one in place of bin/vault.
VAULT_BIN ?= $(CURDIR)/bin/vault
export VAULT_BIN

SAY := @printf '\n── %s\n'

.PHONY: help
help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

.PHONY: need-go
need-go:
	@command -v go >/dev/null || { echo "make: Go is not installed or not in PATH: Strongroom is built with Go 1.26 or newer (https://go.dev/dl/)" >&2; exit 1; }

# ── programs

.PHONY: build
build: need-go ## bin/strongroom, bin/strongroom-installer, bin/vault-plugin-secrets-apikeys (GOARCH=arm64: bin/arm64/…)
	$(SAY) "building strongroom $(VERSION) ($(COMMIT))"
	mkdir -p $(OUT) $(LOAD)
	$(GO_BUILD) -o $(OUT)/strongroom ./appliance/cmd/strongroom
	$(GO_BUILD) -o $(OUT)/vault-plugin-secrets-apikeys ./plugin/cmd/vault-plugin-secrets-apikeys
	cp $(OUT)/strongroom $(OUT)/vault-plugin-secrets-apikeys $(LOAD)/
	echo $(VERSION) >$(LOAD)/VERSION
	$(GO_BUILD) -o $(OUT)/strongroom-installer ./installer/cmd/strongroom-installer

.PHONY: vault
vault: need-go ## bin/vault, a real Vault server (or check VAULT_BIN)
ifeq ($(VAULT_BIN),$(CURDIR)/bin/vault)
vault: bin/vault
else
	@test -x "$(VAULT_BIN)" || { echo "make: VAULT_BIN=$(VAULT_BIN) is not an executable file" >&2; exit 1; }
endif

bin/vault: test/tools/go.mod test/tools/go.sum | need-go
	$(SAY) "building Vault once (10 to 15 minutes on two cores; it is kept in bin/)"
	scripts/build-tool bin/vault test/tools github.com/hashicorp/vault

# ── tools of the tests

TOOLS := bin/pebble bin/pebble-challtestsrv bin/versitygw bin/kvv2
DEVTOOLS := bin/gotestsum bin/staticcheck bin/govulncheck bin/actionlint bin/h2spec

# The front's peer in the benchmarks, of the version that the front embeds.
bin/caddy: test/stockcaddy/go.mod test/stockcaddy/go.sum | need-go
	scripts/build-tool $@ test/stockcaddy github.com/caddyserver/caddy/v2/cmd/caddy

.PHONY: tools
tools: $(TOOLS) $(DEVTOOLS) ## what only tests and benchmarks need: Pebble, versitygw, a peer, linters

bin/pebble: PKG := github.com/letsencrypt/pebble/v2/cmd/pebble
bin/pebble-challtestsrv: PKG := github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv
bin/versitygw: PKG := github.com/versity/versitygw/cmd/versitygw
bin/kvv2: PKG := ./kvv2
$(TOOLS): test/tools/go.mod test/tools/go.sum | need-go
	scripts/build-tool $@ test/tools $(PKG)

bin/gotestsum: PKG := gotest.tools/gotestsum
bin/staticcheck: PKG := honnef.co/go/tools/cmd/staticcheck
bin/govulncheck: PKG := golang.org/x/vuln/cmd/govulncheck
bin/actionlint: PKG := github.com/rhysd/actionlint/cmd/actionlint
bin/h2spec: PKG := github.com/summerwind/h2spec/cmd/h2spec
$(DEVTOOLS): test/devtools/go.mod test/devtools/go.sum | need-go
	scripts/build-tool $@ test/devtools $(PKG)

# ── what to run

# make demo SERVER=openbao runs it on OpenBao.
.PHONY: demo
demo: build ## the whole appliance, once, in a temporary folder (SERVER=openbao: not on Vault)
	$(SAY) "strongroom demo"
	vault=$$(scripts/demo-vault $(SERVER)); bin/strongroom demo --once --vault "$$vault"

.PHONY: test
test: build vault tools lint ## lint, unit tests, end-to-end tests against the real parts
	$(SAY) "what the tests need of Debian"
	scripts/test-deps
	$(SAY) "OpenBao, the second server"
	scripts/openbao || echo "   its tests are skipped"
	$(SAY) "PostgreSQL 16 and 18, beside Debian's"
	for v in 16 18; do scripts/postgres $$v || echo "   its tests are skipped"; done
	$(SAY) "Go tests (unit, end to end against the real Vault), and beside them the Python tests"
	scripts/test

.PHONY: check
check: need-go bin/staticcheck bin/actionlint ## the quick check that every commit passes: format, vet, linters, types, short tests
	scripts/check

.PHONY: race
race: build vault tools ## the race detector, in tests and in the programs that they run (needs a C compiler)
	$(SAY) "race detector"
	scripts/race

.PHONY: cover
cover: need-go ## statements covered by short tests, in the packages that are logic
	$(SAY) "coverage by short tests, without a Vault"
	scripts/cover

.PHONY: lint
lint: need-go bin/staticcheck bin/actionlint bin/govulncheck ## gofmt, go vet, staticcheck, actionlint, govulncheck
	$(SAY) "lint"
	scripts/lint

.PHONY: bench
bench: build vault tools bin/caddy ## figures, as ratios against a peer in the same run
	$(SAY) "benchmarks"
	scripts/bench

# make soak AREA=engine keeps to one area; scripts/soak names them.
.PHONY: soak
soak: build vault tools ## the long campaigns in full (AREA=… for those of one area)
	$(SAY) "soak: the long form of the campaigns in make test"
	scripts/soak $(AREA)

.PHONY: clean
clean: ## remove what was built (Vault too), and the machines that tests have booted
	rm -rf bin installer/payload/bin/*/strongroom installer/payload/bin/*/vault-plugin-secrets-apikeys installer/payload/bin/*/VERSION python/dist
	[ ! -d .cache/vps ] || scripts/vps clear
