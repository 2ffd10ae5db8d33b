# Everything that this repository can do. CI runs `make test` and `make check`.

GO       ?= go
FUZZTIME ?= 5s
PART     := .ci/part

# package:target, each fuzzed on its own: the tool takes one at a time.
FUZZ := internal/text:FuzzMessage internal/text:FuzzSearch internal/wire:FuzzDecode internal/wire:FuzzDecodeClient internal/wire:FuzzDecodeServer internal/wire:FuzzServerSent \
        internal/token:FuzzClaims internal/token:FuzzParseSet internal/token:FuzzGatewayHeaders internal/seal:FuzzParseKeySet \
        internal/web:FuzzDraft internal/web:FuzzQuery internal/web:FuzzFollow internal/web:FuzzOriginal internal/directory:FuzzParseAnswer internal/live:FuzzOriginalStart

.PHONY: run test check bench tools format vet unit fuzz lint planted crash build docs

run: ## Run everything on this machine.
	@$(GO) run ./cmd/hanmadi dev

build: ## Build bin/hanmadi.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/hanmadi ./cmd/hanmadi

docs: ## Make docs/refusals.md from the catalogue.
	$(GO) test -count=1 -run TestRefusalsPage ./internal/chat -update

test: ## All tests, about 5 minutes; 5 rounds of kill -9.
	@$(PART) tools   $(MAKE) -s tools
	@$(PART) format  $(MAKE) -s format
	@$(PART) vet     $(MAKE) -s vet
	@$(PART) unit    $(MAKE) -s unit
	@$(PART) fuzz    $(MAKE) -s fuzz

check: ## The long runs: linter, planted bugs, 25 rounds of kill -9, half a minute of fuzzing each.
	@$(PART) lint    $(MAKE) -s lint
	@$(PART) planted $(MAKE) -s planted
	@$(PART) crash   $(MAKE) -s crash
	@$(PART) fuzz    $(MAKE) -s fuzz FUZZTIME=30s

bench: ## The whole program beside a bare net/http server, about 6 minutes; then its parts.
	$(GO) run ./cmd/hanmadi-bench
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...

tools: ## What tests need from the system: strace watches the disk, systemd-analyze judges the unit; nginx, Caddy and Chromium are what a platform has.
	@.ci/tools

format:
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "not formatted: $$files"; exit 1; }

vet:
	$(GO) vet -tags planted ./...

unit:
	$(GO) test -race -shuffle=on -timeout 12m ./...

fuzz:
	@GO=$(GO) .ci/fuzz $(FUZZTIME) $(FUZZ)

lint:
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags planted ./...

planted: ## Bugs planted one by one; the suite must catch each.
	$(GO) test -count=1 -tags planted -run TestPlanted -v -timeout 40m ./cmd/hanmadi

crash:
	HANMADI_TEST_CRASH_ROUNDS=25 $(GO) test -count=1 -run TestCrash -v -timeout 20m ./cmd/hanmadi
