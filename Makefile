# The project's commands. `make help` lists them; CONTRIBUTING.md explains them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests env build demo test chaos bench benches lint tidy fmt clean

# Recipes that compile start with this: it exports LIBTORCH and friends, see `make env`.
with_torch := exports=$$(setup/env) && eval "$$exports" &&

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo
	@echo 'Variables: DATA=/path/to/coco (demo)  QUICK=1 (bench)  PYTHON=python3.12  HGAT_HOME=/big/disk'
	@echo '           HGAT_LIBTORCH=/path/to/libtorch (use that one and install none)'

setup: ## Install torch and build tools, once, outside the build tree (3 to 10 minutes)
	@setup/install

setup-tests: ## The same, and the Python packages that tests and benches compare with
	@setup/install --tests

env: ## Print the exports for plain cargo: eval "$$(make -s env)"
	@setup/env

build: setup ## Build both binaries into target/release
	@$(with_torch) cargo build --release --locked -p coordinator -p worker

demo: ## Train on drawn pictures, or on COCO with DATA=/path/to/coco, by two workers
	@setup/demo $(if $(DATA),'$(DATA)')

test: setup-tests ## Build and run every test; the last line counts them
	@$(with_torch) .ci/count cargo test --release --locked --workspace --no-fail-fast -- --show-output

chaos: setup ## Disturb real runs at random for half an hour and check each (MINUTES=30, SEED=)
	@$(with_torch) cargo build --release --locked -p coordinator -p worker
	@$(with_torch) .ci/chaos --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

bench: setup-tests ## Measure beside peers, print the tables, write bench/results/*.json
	@$(with_torch) cargo build --release --locked -p coordinator -p worker -p probes
	@.ci/run benches

benches:
	@$(with_torch) QUICK=$(QUICK) "$$HGAT_PYTHON" bench/run

lint: setup ## Check everything that can be checked without running it; changes nothing
	cargo fmt --all --check
	@$(with_torch) set -x; cargo clippy --release --locked --workspace --all-targets -- -D warnings
	setup/deny
	cargo test --release --locked --quiet -p tidy

tidy: ## The part of lint that looks after the tree and the docs (seconds)
	cargo test --release --locked --quiet -p tidy

fmt: ## Format all Rust code
	cargo fmt --all

clean: ## Remove what was built; the virtual environment and runs/ stay
	cargo clean
	@. setup/places.sh; echo "kept: $$venv and runs/ (remove them by hand)"
