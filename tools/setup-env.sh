#!/usr/bin/env bash
# Make .venv from requirements.lock. uv installs it, because pip needs minutes where uv needs seconds for 150 wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Trainmaster needs Python 3.11 or newer; $("$python" --version 2>&1) was found. Set PYTHON=/path/to/python3.11 and try again." >&2
  exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
[ -x .venv/bin/uv ] || .venv/bin/pip install --quiet --disable-pip-version-check "$(grep -oE '^uv==[0-9.]+' requirements.lock || echo uv)"
echo "setup: installing the locked packages (about 5 GB the first time, because the registry's torch brings CUDA)"
# compiled once here, or every Ray process compiles torch, pandas and Ray again (2.6 instead of 1.2 CPU seconds for ray.train)
VIRTUAL_ENV=$PWD/.venv .venv/bin/uv pip install --compile-bytecode --require-hashes -r requirements.lock
VIRTUAL_ENV=$PWD/.venv .venv/bin/uv pip install --no-deps --no-build-isolation -e .
touch .venv/.installed
