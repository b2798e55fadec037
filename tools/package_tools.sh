#!/usr/bin/env bash
# Makes .cache/packages/tools: an environment with what makes and checks packages, pinned in packages/tools.txt; with
# "ansible" .cache/packages/ansible, from packages/ansible.txt. PYTHON names the Python to make it with.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
list=packages/${1:-tools}.txt
venv=.cache/packages/${1:-tools}
[ "$(cksum <"$list")" != "$(cat "$venv/made-of" 2>/dev/null)" ] || exit 0
python=$(tools/setup.sh find)
"$python" -m venv --clear "$venv"
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes -r "$list"
cksum <"$list" >"$venv/made-of"
