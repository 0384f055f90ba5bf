#!/usr/bin/env bash
# What a machine can say about the code before it runs.
set -euo pipefail
cd "$(dirname "$0")/.."
run() { printf '  %-28s' "$1"; shift; local out; if out=$("$@" 2>&1); then echo ok; else echo FAILED; echo "$out"; exit 1; fi; }
run "ruff format" .venv/bin/ruff format --check .
run "ruff" .venv/bin/ruff check .
run "mypy --strict" .venv/bin/mypy
run "layer walls (import-linter)" .venv/bin/lint-imports
run "generated files" tools/generate.sh --check
