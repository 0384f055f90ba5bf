#!/usr/bin/env bash
# Files that follow from the contract. With --check nothing is written and a stale file is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m trainmaster_api.generate.crd "$@"
.venv/bin/python -m trainmaster_api.generate.reference "$@"
