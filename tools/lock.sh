#!/usr/bin/env bash
# Lock files carry names, versions and hashes; no index address. One resolution serves all: the image locks are cut out of it.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || uv=uv
compile() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"; }
compile pyproject.toml --group dev --extra operator --extra trainer --extra cli --no-emit-package trainmaster -o requirements.lock
compile pyproject.toml --extra operator --constraint requirements.lock -o locks/operator.lock
compile pyproject.toml --extra trainer --constraint requirements.lock -o locks/trainer.lock
# the images bootstrap uv itself from this one entry
awk '/^uv==/{on=1} on{print} on && !/\\$/{exit}' requirements.lock > locks/uv.lock
