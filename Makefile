# What there is to do here. `make` lists it.

# What benches measure and packages hold: a release, or with PGO=1 what `make pgo` builds. Packages have that unless they are
# told PGO=.
PGO ?=
deb: PGO = 1
tuned := $(abspath $(or $(CARGO_TARGET_DIR),target))/pgo
released = $(if $(PGO),@$(MAKE) --no-print-directory $(tuned)/release/edgeproxy,cargo build --release --locked)
found = $(if $(PGO),CARGO_TARGET_DIR=$(tuned))

# A newcomer waits for one build, not for two: `make run` takes what is built. See scripts/run.
PROFILE ?=

.DEFAULT_GOAL := help
.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what building, checking and testing need
	@scripts/setup build lint test

.PHONY: build
build: ## build the program (release)
	@scripts/setup build
	cargo build --release --locked

.PHONY: pgo
pgo: $(tuned)/release/edgeproxy ## the same by profiles of its own work: a tenth less CPU (twenty minutes; target/pgo)

$(tuned)/release/edgeproxy: scripts/pgo Cargo.toml Cargo.lock $(shell find src -type f)
	@scripts/setup pgo
	@scripts/pgo

.PHONY: run
run: ## start the showcase, conf/edge.yaml (PROFILE=release for speed)
	@scripts/setup build
	@scripts/run $(PROFILE)

.PHONY: demo-check
demo-check: ## start the showcase, see a MISS and a HIT over https, stop it
	@scripts/setup build test
	@scripts/demo-check $(PROFILE)

.PHONY: test
test: ## run every test, those of optional features too
	@scripts/setup build test
	cargo test --locked --features srv

.PHONY: conformance
conformance: ## the public tests for HTTP caches and for HTTP/2, compared with what is expected (TEST=id for one cache test)
	@scripts/setup build conformance
	@scripts/conformance $(TEST)
	@[ -n "$(TEST)" ] || scripts/conformance-http2

.PHONY: fmt
fmt: ## format the sources
	cargo fmt

.PHONY: lint
lint: ## formatting, clippy and documentation, warnings are errors
	@scripts/setup lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features srv -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

.PHONY: check-pure
check-pure: ## test the decisions alone: no Pingora, no tokio, no files
	@scripts/setup build
	cargo test --locked --no-default-features --lib
	@scripts/check-pure

.PHONY: deps
deps: ## check licences, bans, sources and advisories of dependencies
	@scripts/setup lint
	@scripts/check-deps

.PHONY: bench-compare
bench-compare: ## requests per second and CPU beside nginx and HAProxy
	@scripts/setup bench
	$(released)
	$(found) python3 benches/compare/compare.py $(ARGS)

.PHONY: bench-handshakes
bench-handshakes: ## TLS handshakes and CPU for each beside nginx and HAProxy
	@scripts/setup bench
	$(released)
	$(found) python3 benches/compare/handshakes.py $(ARGS)

.PHONY: bench-instructions
bench-instructions: ## instructions of a request beside nginx and HAProxy, counted by callgrind
	@scripts/setup bench
	$(released)
	$(found) python3 benches/compare/instructions.py $(ARGS)

.PHONY: bench-memory
bench-memory: ## memory per idle connection, plain and TLS
	@scripts/setup bench
	$(released)
	$(found) python3 benches/memory/idle.py $(ARGS)

.PHONY: bench-fill
bench-fill: ## memory of the process while its store is full
	@scripts/setup bench
	$(released)
	$(found) python3 benches/memory/fill.py $(ARGS)

.PHONY: bench-parts
bench-parts: ## balancing, lending a backend, the cache's decisions and the memory tier by themselves
	@scripts/setup build
	cargo bench --locked --bench parts -- balance lend decisions tier

.PHONY: bench-evict
bench-evict: ## eviction policies: their share of hits over the same requests
	@scripts/setup build
	cargo bench --locked --bench parts -- evict

.PHONY: deb
deb: ## a Debian package, in target/debian (needs cargo-deb)
	@scripts/setup build
	$(released)
	$(if $(PGO),install -D $(tuned)/release/edgeproxy target/release/edgeproxy)
	target/release/edgeproxy man > target/release/edgeproxy.1
	cargo deb --no-build --locked $(if $(PGO),--no-strip)

.PHONY: ci
ci: ## everything that continuous integration does
	bash .ci/run

.PHONY: clean
clean: ## remove what was built
	cargo clean
