# The two that matter: make run, make test. Each does its own set-up, with Go and make alone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test beside-unit check spec lint redis unit fuzz web mails deploy container packages e2e supply release build generate bench timing clean

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## resetd dev: the server with stand-ins and an inbox
	go run ./cmd/resetd dev

test: ## everything but the image and the packages: linters, generated code, all tests with the race detector, a short fuzz, clients, browser, deployment files
	@$(MAKE) --no-print-directory -j1 timed-check timed-lint timed-spec timed-redis && \
		$(MAKE) --no-print-directory -j2 -Oline timed-unit beside-unit && \
		echo "$$SECONDS s in all"

# The tests wait more than they work, so that the other stages take little time beside them.
beside-unit:
	@$(MAKE) --no-print-directory -j1 timed-deploy timed-supply timed-fuzz timed-web

timed-%:
	@$(MAKE) --no-print-directory $* && echo "$$SECONDS s for $*"

check: ## formatting, vet, tidy modules, up-to-date generated code
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "not formatted: $$bad"; exit 1; }
	go vet -tags supabase,database,full ./...
	go mod verify
	go mod tidy -diff
	./test/generated.sh

lint: ## golangci-lint, in the version of tools/go.mod
	go tool -modfile=tools/go.mod golangci-lint run ./...

spec: ## openapi.yaml: lint, and no breaking change without a version that says so
	@./test/spec.sh
	@./test/breaking.sh

redis: ## redis-server for the tests: found, or installed on Debian
	@./test/install.sh redis-server

unit: ## all tests, also those with the build tag full; with the race detector, except where time is measured
	go test -tags full -race -timeout 20m $$(go list ./... | grep -v '/test/e2e$$')
	go test -race -timeout 20m ./test/e2e # the binary has the detector too
	go test -tags full -timeout 20m ./test/e2e

# Each target runs its corpus, and then for FUZZTIME; longer by hand: make fuzz FUZZTIME=10m. The default is a
# number of inputs, because Go 1.26 may fail a target without findings when a time ends (golang/go#75804).
FUZZTIME ?= 20000x
fuzz: ## every fuzz target, for FUZZTIME each
	@./test/fuzz.sh $(FUZZTIME)

web: ## the TypeScript client, and the pages in Chromium, with the real server
	@./test/web.sh

# make mails SINCE=main shows what has changed since a revision.
mails: ## pictures of the mail in every language, in bin/mails; all of them in contact-sheet.png
	@./test/mails.sh bin/mails $(SINCE)

deploy: ## alert rules, dashboard, compose file and Kubernetes manifests
	@./test/alerts.sh
	@./test/manifests.sh

container: ## build the image, and run it as in deploy/ (Debian, root)
	@./test/container.sh

packages: release ## the packages: install, run, upgrade and purge them on a separate system (Debian, root)
	@./test/packages.sh

e2e: ## the whole way with a real Supabase Auth: SUPABASE_AUTH_URL and key, SUPABASE_AUTH_BIN, or Docker
	@./test/supabase.sh

supply: ## licences of the shipped works, workflows, known vulnerabilities
	@go run ./test/licences
	@./test/workflows.sh
	@./test/vulnerabilities.sh --offline-ok

release: ## a trial of the release, in bin/release: archives, packages, SBOMs, checksums (some minutes the first time)
	@./test/release.sh

build: ## bin/resetd
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/resetd ./cmd/resetd

generate: ## gen/ and the types of the TypeScript client, from openapi.yaml
	go generate ./...
	./test/node.sh npm --prefix test/web run --silent generate

bench: build redis ## processor time, requests per second and memory, compared with a floor server; fails if an aim is missed by 15 %
	@echo "With limits and requests in Redis, which have no aims:"
	@./test/with-redis.sh go run ./test/bench -resetd bin/resetd -paths known,unknown,429,latency -set REDIS_URL=REDIS
	@echo; echo "Without Redis:"
	go run ./test/bench -resetd bin/resetd -check

timing: build ## does the time of an answer, or of the next one, tell who has an account? (18 minutes, on a quiet machine)
	go run ./test/timing -resetd bin/resetd

clean: ## remove what was built
	rm -rf bin
