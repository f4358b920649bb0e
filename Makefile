# Entry points for people and for CI. Each is one script or one cargo command; nothing is decided here.

# Compiled dependencies live outside the clone, so that a fresh clone builds quickly.
export LACEWING_CACHE ?= $(HOME)/.cache/lacewing
export CARGO_TARGET_DIR ?= $(LACEWING_CACHE)/target

.PHONY: help build test test-vm soak bench bench-peers fuzz fmt

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

build: ## Compile the release binary.
	cargo build --release --locked

test: ## Install what the tests need, then format, lint, tidy, unit, integration and end-to-end tests.
	@scripts/prepare-tests
	@cargo xtask ci

test-vm: ## Run the sandbox's suites on Debian's kernel with cgroup v2 only, in qemu; slow.
	@scripts/prepare-tests
	@scripts/prepare-vm
	@cargo xtask vm

soak: ## The long forms of the crash and soak tests.
	@scripts/prepare-tests
	@cargo xtask soak

bench: ## Measure the promises of SPECIFICATION.md.
	@scripts/prepare-tests
	@cargo xtask bench

bench-peers: ## Measure others that run such functions, as far as they can be installed, and this one beside them.
	@scripts/prepare-tests
	@scripts/prepare-peers
	@cargo xtask bench-peers

SECONDS_EACH ?= 120
fuzz: ## Run each fuzzer for SECONDS_EACH seconds (120).
	@cargo xtask fuzz --seconds $(SECONDS_EACH)

fmt: ## Format the code.
	cargo fmt --all
