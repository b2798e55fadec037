#!/usr/bin/env bash
# Writes constraints.txt: version and hashes of every package that any extra, any tool and the build itself need, for every
# Python that pyproject.toml allows. Packages already pinned there keep their version; `tools/pin.sh --upgrade` takes the newest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$1 && shift
uv_version=0.13.9
pin=$root/.cache/pin

[ -x "$pin/bin/uv" ] && "$pin/bin/uv" --version | grep -qF "uv $uv_version" || {
  rm -rf "$pin"
  "$python" -m venv "$pin"
  "$pin/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"
}
# uv reads none of pip's settings: hand on a mirror that the machine's pip uses
index=$("$pin/bin/pip" config get global.index-url 2>/dev/null || true)
index=${PIP_INDEX_URL:-$index}
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index

# An editable install without isolation needs the build's own requirements as well; hatchling asks for editables only then.
# pip is pinned for the same reason: what resolves and checks the hashes is the same everywhere.
cd "$root"
"$python" - >"$pin/build.in" <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as stream:
    print(*tomllib.load(stream)["build-system"]["requires"], "editables", "pip>=25", sep="\n")
PYTHON
"$pin/bin/uv" pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make pin" \
  --output-file constraints.txt "$@" pyproject.toml "$pin/build.in"
# lists beside it, for the same versions: of tools, and of what machines in production install
part() {
  local output=$1
  shift
  "$pin/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint constraints.txt \
    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make pin" --output-file "$output" "$@"
}
part tools/supply.txt "$@" tools/supply.in
part packages/tools.txt "$@" packages/tools.in
part packages/ansible.txt "$@" packages/ansible.in
part packages/requirements.txt --extra cli --extra docker --extra systemd --extra trust --extra backup pyproject.toml
part packages/requirements-server.txt --extra server --extra notify --extra cli --extra docker --extra systemd \
  --extra trust --extra backup pyproject.toml
lists=(constraints.txt tools/supply.txt packages/{tools,ansible,requirements,requirements-server}.txt)
if grep -nE "://|^--|^-[ief]|@ |$root" "${lists[@]}"; then
  echo "pin: a list names a place (above): only names, versions and hashes may stand there" >&2
  exit 1
fi
echo "pin: $(grep -c '==' constraints.txt) packages in constraints.txt"
