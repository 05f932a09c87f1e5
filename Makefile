# make          what there is
# make check    format, lints, unit and golden tests, licences, generated files: under a minute when warm
# make test     all of that, then real ovsdb-servers and the lab's end-to-end tests: scripts/test
# make mutants  changes the compiler's and the prober's pure code in every way, and says which change no test notices
# make demo     the main path on real parts, from YAML to packets; leaves the cluster up
# make down     removes every trace of the demo's cluster
# make bench    the compiler's, the OVSDB client's and the prober's benchmarks

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help own check fmt clippy unit deny generated tidy test test-ovsdb test-lab mutants bench demo down

CACHE ?= /var/cache/ycloud
DENY_VERSION := 0.20.2
MUTANTS_VERSION := 27.1.0
MUTANTS := $(CACHE)/tools/cargo-mutants-$(MUTANTS_VERSION)/bin/cargo-mutants
DENY := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

$(DENY):
	@echo "cargo-deny $(DENY_VERSION): building once into $(CACHE)/tools"
	@cargo install --quiet --locked --no-default-features --debug --root $(CACHE)/tools/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

$(MUTANTS):
	@echo "cargo-mutants $(MUTANTS_VERSION): building once into $(CACHE)/tools"
	@cargo install --quiet --locked --debug --root $(CACHE)/tools/cargo-mutants-$(MUTANTS_VERSION) cargo-mutants@$(MUTANTS_VERSION)

fmt: ; cargo fmt --all --check
clippy: ; cargo clippy --workspace --all-targets --features ycloud-lab/e2e --quiet -- -D warnings
unit: ; cargo test --workspace --lib --bins --quiet && cargo test --quiet --workspace --test cases
deny: $(DENY) ; $(DENY) --log-level error check bans licenses sources
generated: ; cargo xtask crds --check && cargo xtask generate-ovsdb --check
tidy: ; cargo xtask tidy

## Nothing that another checkout built is taken for this one's.
own: ; scripts/own-builds

check: own fmt clippy unit deny generated tidy

test: check
	scripts/test

## Hours: MUTANTS_ARGS="--shard 1/8" does an eighth. See scripts/mutants.
mutants: $(MUTANTS) ; MUTANTS=$(MUTANTS) scripts/mutants $(MUTANTS_ARGS)

demo: own ; cargo lab demo
down: ; cargo lab down
bench: ; cargo bench --package ycloud-compiler --package ycloud-ovsdb --package ycloud-probe
