# Every recipe that CI or a person needs. The dev profile serves all of them, and all of them name
# the workspace in the same way, so that nothing is built twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO = . ci/env.sh && cargo
WORKSPACE = --workspace --all-targets --locked

.PHONY: help deps build run demo test charts images e2e conformance sim fmt lint docs

help: ## Show this list
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

deps: ## Install what is missing on Debian or Ubuntu
	@ci/deps.sh

build: deps ## Build all binaries and tests
	$(CARGO) build $(WORKSPACE)

run: build ## Run a local cluster under gentle load until Ctrl-C
	@. ci/env.sh && deploy/demo/run.sh

demo: build ## Kill the leader and a node under load, and judge the result
	@. ci/env.sh && deploy/demo/demo.sh

test: deps ## Check form and lints, then run every test
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(WORKSPACE) -- -D warnings
	$(CARGO) build $(WORKSPACE)
	$(CARGO) test --workspace --locked
	@$(MAKE) --no-print-directory charts

charts: ## Check the chart, manifests, dashboards and rules
	@ci/deps.sh charts
	@deploy/check.sh

# REGISTRY=registry.example.com/team goes before the names; PROFILE=dev takes what is built.
images: deps ## Build the container images, into target/images
	@. ci/env.sh && deploy/images/build.sh target/images

# STEPS=upgrade,pool for some steps, KUBECONFIG=file for another cluster; run.sh says the rest.
e2e: deps ## Grow, shrink, upgrade and damage a Kubernetes cluster under load; nothing may fail
	@ci/deps.sh e2e
	@. ci/env.sh && operator/tests/e2e/run.sh

# NODES=3 for more nodes, TEST=id for one test and its messages.
conformance: build ## Run the public HTTP suites against an edge, and judge the result
	@. ci/env.sh && ci/conformance/run.sh
	@. ci/env.sh && ci/conformance/h2spec.sh

# SEEDS=10000 runs more seeds, FROM=1 begins elsewhere, SEED=123 replays one, event by event.
SEEDS ?= 300
FROM ?= 1
sim: deps ## Simulate a cluster through faults: SEEDS=10000, or SEED=123 to replay one
	@. ci/env.sh && export SHOAL_SIM_SEEDS=$(SEEDS) SHOAL_SIM_FROM=$(FROM) SHOAL_SIM_SEED=$(SEED) \
		&& cargo test --workspace --locked --lib -- --nocapture --exact \
		supernode::sim::tests::seeds_hold

fmt: ## Format the sources
	$(CARGO) fmt --all

lint: deps ## Check form and lints only
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(WORKSPACE) -- -D warnings

docs: deps ## Write the tables of metrics and of configuration keys anew
	. ci/env.sh && SHOAL_WRITE_DOCS=1 cargo test --workspace --locked --test tidy documented
	. ci/env.sh && SHOAL_WRITE_CRDS=1 cargo test --workspace --locked --test definitions
