# kvswitch. `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
FUZZTIME ?= 10s

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# What is built and installed. The bench is a program of its own that the verb
# executes: nothing of it is in the daemon. So is what QEMU runs as its bridge
# helper: nothing of the daemon is in that.
PROGRAMS := kvswitch kvswitch-bench kvswitch-bridge-helper

# Packages whose tests are worth the race detector's price, and those that
# spend their time in other processes, guests and timings, where it would find
# nothing. fdb and stp run both ways: their largest tests only without.
SLOW := /cmd/kvswitch/e2e$$|/cmd/kvswitch-demo$$|/bench(/|$$)
RACE  = $(shell go list ./... | grep -vE '$(SLOW)')
PLAIN = $(shell go list ./... | grep -E '$(SLOW)|/(fdb|stp)$$')

.DEFAULT_GOAL := build
.PHONY: help build test test-all race lint generate fuzz demo bench bench-quick guest deps install uninstall clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the static programs ./kvswitch, ./kvswitch-bench and ./kvswitch-bridge-helper
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o ./ $(PROGRAMS:%=./cmd/%)

test: ## lint, then every test: generated files, unit, race, end to end, real guests
	.ci/deps test
	$(MAKE) --no-print-directory guest lint build
	@status=0; set -x; \
	.ci/generated || status=1; \
	go test -count=1 -race -timeout 20m $(RACE) || status=1; \
	KVSWITCH_BIN=$(CURDIR)/kvswitch go test -count=1 -p 1 -timeout 40m $(PLAIN) || status=1; \
	exit $$status

test-all: ## the same, with every end-to-end test in both modes of --in-kernel
	KVSWITCH_IN_KERNEL=off $(MAKE) --no-print-directory test
	KVSWITCH_IN_KERNEL=auto KVSWITCH_BIN=$(CURDIR)/kvswitch go test -count=1 -timeout 25m ./cmd/kvswitch/e2e

race: ## every test under the race detector, end to end included
	.ci/deps test
	go test -race -timeout 30m -p 1 ./...

lint: ## gofmt, vet, and the rules of this project that no tool knows
	.ci/lint

generate: ## compile the BPF programs, whose objects are committed, from their C (bpf/*.bpf.c)
	.ci/deps test
	go generate ./...

fuzz: ## run each fuzz target for FUZZTIME (10s)
	.ci/fuzz $(FUZZTIME)

demo: ## two hosts, two switches, two real guests: DHCP, ping, 64 MiB over TCP
	.ci/deps demo
	@$(MAKE) --no-print-directory guest build
	go run ./cmd/kvswitch-demo -kvswitch ./kvswitch

bench: build ## race against the kernel bridge and others, into build/bench and bench/RESULTS.md (root, 28 minutes)
	./kvswitch bench --report build/bench
	./kvswitch bench --path vhost-user --sizes 64,1518 --flows 1 --report build/bench/vhost-user
	cat build/bench/results.md build/bench/vhost-user/results.md >build/bench/both.md
	sed -i -e '/^<!-- results -->$$/,/^<!-- end of results -->$$/{//!d}' \
		-e '/^<!-- results -->$$/r build/bench/both.md' bench/RESULTS.md

bench-quick: build ## the same in three minutes: shows that the bench works, not who is faster
	./kvswitch bench --quick --report build/bench-quick

guest: ## prepare the guest that tests and demo boot: build/guest
	@.ci/deps guest
	@go run ./bench/testbed/vm/mkguest

deps: ## install the Debian packages that the tests need
	@.ci/deps test

# Where the built programs are, and where completions and the unit are looked for.
BUILT  ?= .
SHARE   = $(DESTDIR)$(PREFIX)/share
UNITS   = $(DESTDIR)$(PREFIX)/lib/systemd/system

install: build ## install under PREFIX (/usr/local), below DESTDIR if set
	install -d $(DESTDIR)$(PREFIX)/bin $(UNITS) $(SHARE)/bash-completion/completions \
		$(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d $(SHARE)/kvswitch/grafana
	install -m 755 $(PROGRAMS:%=$(BUILT)/%) $(DESTDIR)$(PREFIX)/bin
	for name in ifup ifdown; do \
		ln -sf kvswitch $(DESTDIR)$(PREFIX)/bin/kvswitch-$$name || exit 1; done
	sed 's,@PREFIX@,$(PREFIX),g' cmd/kvswitch/systemd/kvswitch@.service >$(UNITS)/kvswitch@.service
	install -m 644 cmd/kvswitch/grafana/* $(SHARE)/kvswitch/grafana
	$(BUILT)/kvswitch completion bash >$(SHARE)/bash-completion/completions/kvswitch
	$(BUILT)/kvswitch completion zsh >$(SHARE)/zsh/site-functions/_kvswitch
	$(BUILT)/kvswitch completion fish >$(SHARE)/fish/vendor_completions.d/kvswitch.fish

uninstall: ## remove what install installed; configuration and running switches stay
	rm -f $(PROGRAMS:%=$(DESTDIR)$(PREFIX)/bin/%) $(DESTDIR)$(PREFIX)/bin/kvswitch-ifup \
		$(DESTDIR)$(PREFIX)/bin/kvswitch-ifdown $(UNITS)/kvswitch@.service \
		$(SHARE)/bash-completion/completions/kvswitch $(SHARE)/zsh/site-functions/_kvswitch \
		$(SHARE)/fish/vendor_completions.d/kvswitch.fish
	rm -rf $(SHARE)/kvswitch

clean: ## remove what make made
	rm -rf $(PROGRAMS) build report
