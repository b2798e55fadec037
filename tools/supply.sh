#!/usr/bin/env bash
# Makes .cache/supply: an environment with what `make sbom` and `make audit` run, pinned in tools/supply.txt.
# PYTHON names the Python to make it with.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.cache/supply
[ "$(cksum <tools/supply.txt)" != "$(cat "$venv/made-of" 2>/dev/null)" ] || exit 0
python=$(tools/setup.sh find)
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes -r tools/supply.txt
cksum <tools/supply.txt >"$venv/made-of"
