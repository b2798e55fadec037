#!/usr/bin/env bash
# Prints the Pythons that `make test-pythons` runs on, one path a line: Debian's own, then the newest other one.
# The other one is the highest of 3.13, 3.12 and 3.11 on PATH and below pyenv, if its version differs from Debian's.
set -euo pipefail

own=/usr/bin/python3

# Prints "VERSION PATH" of a Python that runs, is supported and can make a virtual environment.
describe() {
  "$1" -c '
import platform, sys, venv, ensurepip
if (3, 11) <= sys.version_info[:2] <= (3, 13):
    print(platform.python_version(), sys._base_executable)' 2>/dev/null || true # a shim of pyenv may stand for nothing
}

described=$(describe "$own")
if [ -z "$described" ]; then
  echo "pythons: $own is not a Python from 3.11 to 3.13 that can make a virtual environment:" \
    "apt-get install python3 python3-venv" >&2
  exit 1
fi
echo "$own"

others=$(
  for candidate in python3.13 python3.12 python3.11 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
    describe "$candidate"
  done | awk -v own="${described%% *}" '$1 != own' | sort --version-sort --reverse
)
if [ -n "$others" ]; then
  newest=${others%%$'\n'*}
  echo "${newest#* }"
else
  echo "pythons: this machine has no other Python from 3.11 to 3.13 than $own" >&2
fi
