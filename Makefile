# Each target is one line that calls something readable.
SHELL := /bin/bash
PY := .venv/bin/python
NODES ?= 2
PROVIDER ?= bed

.PHONY: setup demo test test-fast lint bench cluster-up cluster-down lock crd help

help:            ## what can be called
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

.venv/.installed: requirements.lock pyproject.toml
	./tools/setup-env.sh

setup: .venv/.installed  ## the Python environment, from requirements.lock

lock:            ## resolve pyproject.toml into the lock files (names, versions, hashes)
	./tools/lock.sh
