# Every way to build, try and check Causeway. `make help` lists the targets; each one installs what it needs first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CAUSEWAY_CACHE ?= $(HOME)/.cache/causeway
export CARGO_TARGET_DIR ?= $(CAUSEWAY_CACHE)/target
export PATH := $(CAUSEWAY_CACHE)/tools/bin:$(PATH)

# Always the whole workspace: another selection resolves other features, and the dependencies would compile a second time.
CARGO_ARGS := --workspace --locked
# Shows what it reads, and fails when no test ran: a name that matches nothing must not pass for a success.
SOME_RAN := awk '{ print; fflush() } /^test result: ok\. [1-9]/ { ran = 1 } END { if (!ran) print "no test ran" > "/dev/stderr"; exit !ran }'
# Private items are documented too, so that a link to one leads somewhere.
DOC := RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc $(CARGO_ARGS) --no-deps --document-private-items
SHELL_SCRIPTS := $(wildcard infra/dev/*.sh infra/docker/*.sh .ci/run)

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | sort | while IFS=$$'\t' read -r name what; do printf '  %-9s %s\n' "$$name" "$$what"; done

.PHONY: setup
setup: ## install what the tests need (a fresh Debian machine with Rust, Python and a JDK is enough)
	@infra/dev/setup.sh test

.PHONY: setup-build
setup-build:
	@infra/dev/setup.sh build

# Cargo names what it compiles by the path inside the workspace and judges it by file times: in a target directory that another
# checkout used last, the programs of that one would pass for ours. What is compiled of the dependencies stays.
OWNER := $(CARGO_TARGET_DIR)/checkout
.PHONY: own-target
own-target: setup-build
	@mkdir -p "$(CARGO_TARGET_DIR)"
	@if [ "$$(cat "$(OWNER)" 2>/dev/null)" != "$(CURDIR)" ]; then cargo clean --quiet --locked --workspace; echo "$(CURDIR)" >"$(OWNER)"; fi

.PHONY: build
build: own-target ## compile every program into $CARGO_TARGET_DIR/debug
	cargo build $(CARGO_ARGS) --bins

# Root installs for everyone, others for themselves.
PREFIX ?= $(if $(filter 0,$(shell id -u)),/usr/local,$(HOME)/.local)
PROFILE ?= release
.PHONY: install
install: own-target ## compile with optimisation and install every program below PREFIX (/usr/local for root, else ~/.local)
	cargo build $(CARGO_ARGS) --bins $(if $(filter release,$(PROFILE)),--release)
	@install -d "$(DESTDIR)$(PREFIX)/bin"
	@for program in causeway causeway-agent causeway-ingest causeway-compactor causeway-query causeway-loadtest; do \
		install -m 755 "$(CARGO_TARGET_DIR)/$(PROFILE)/$$program" "$(DESTDIR)$(PREFIX)/bin/"; done
	@echo "installed in $(DESTDIR)$(PREFIX)/bin"
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo 'this is not on PATH: add  export PATH="$(PREFIX)/bin:$$PATH"  to your profile' ;; esac

.PHONY: demo
demo: build ## trace a stub training job on this host and answer questions about it (DEMO_EXIT=1: stop after the answers)
	@exec infra/dev/demo.sh

.PHONY: format
format: ## rewrite sources as rustfmt wants them
	cargo fmt --all

.PHONY: check
check: setup own-target
	cargo fmt --all --check
	cargo clippy $(CARGO_ARGS) --all-targets --quiet -- -D warnings
	$(DOC) --quiet
	shellcheck -x -P SCRIPTDIR $(SHELL_SCRIPTS)
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: lint
lint: check ## formatting, shellcheck, clippy, cargo-deny, and the advisories of today
	@if cargo deny fetch db; then cargo deny --locked check advisories; else echo 'advisories NOT checked: their database cannot be reached from here' >&2; fi

.PHONY: estate
estate: build setup ## terraform/ applied to a local server, and manifests, images and units held against their validators
	infra/dev/estate.sh

.PHONY: test
test: check build estate ## every check and every test, against real servers
	cargo test $(CARGO_ARGS) --no-fail-fast

.PHONY: doc
doc: own-target ## the documentation of every crate, private items too, into $CARGO_TARGET_DIR/doc; a warning fails it
	$(DOC)

.PHONY: generate
generate: own-target ## rewrite the files that are generated from the event catalogue
	BLESS=1 cargo test --locked -p house-tests --test house generated

.PHONY: bench
bench: setup own-target ## figures and ratios on this machine, from a release build
	cargo build $(CARGO_ARGS) --bins --release
	@for bench in ingest commit checksum compact freshness detect memory; do "$(CARGO_TARGET_DIR)/release/causeway-loadtest" bench $$bench; done

.PHONY: torture
torture: build setup ## long fault runs: the system tests that are ignored otherwise
	cargo test $(CARGO_ARGS) --test '*' -- --ignored --nocapture --test-threads 1 torture | $(SOME_RAN)

.PHONY: fuzz
fuzz: own-target ## random and damaged input for FUZZ_SECONDS (300)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-300} cargo test $(CARGO_ARGS) --lib -- --nocapture hostile | $(SOME_RAN)

.PHONY: clean
clean: ## remove what was compiled (downloads stay in $CAUSEWAY_CACHE)
	cargo clean
