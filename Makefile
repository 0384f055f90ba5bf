# Each target is one line that calls something readable.
SHELL := /bin/bash
PY := .venv/bin/python
NODES ?= 2
PROVIDER ?= bed

.PHONY: help setup demo test test-fast lint bench cluster-up cluster-down images lock generate

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

.venv/.installed: requirements.lock pyproject.toml tools/setup-env.sh
	@tools/setup-env.sh

setup: .venv/.installed  ## the Python environment, from requirements.lock

demo: setup      ## train the digits example on this machine, with two workers
	@.venv/bin/trainmaster run examples/digits/trainingjob.yaml

test:            ## everything: lint, unit, integration, end-to-end on a real cluster
	@tools/test.sh

test-fast:       ## lint and unit tests: no root, no cluster
	@tools/test.sh --fast

lint: setup      ## ruff, mypy --strict, the layer walls, generated files
	@tools/lint.sh

bench: setup     ## the benchmarks; writes docs/benchmarks.md (BENCH=larger: rows larger than memory, GB=20; only so)
	@$(PY) -m tests.bench $(BENCH) $(if $(GB),--gb $(GB))

ifeq (bench,$(firstword $(MAKECMDGOALS)))
# `make bench data step` runs those; their names are no targets
BENCH ?= $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
$(eval $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS)):;@:)
endif

cluster-up: setup images  ## a real Kubernetes on this machine, with MinIO and MLflow (NODES=1..3, PROVIDER=bed|kind)
	@$(PY) -m testbed up --nodes $(NODES) --provider $(PROVIDER)

cluster-down:    ## remove it, down to the last mount
	@$(PY) -m testbed down --provider $(PROVIDER)

images: setup    ## build the operator and the trainer image
	@$(PY) -m testbed images build

lock:            ## resolve pyproject.toml into the lock files (names, versions, hashes)
	@tools/lock.sh

generate: setup  ## the files that are generated from the contract: CRD, reference pages, the chart's copy
	@tools/generate.sh
