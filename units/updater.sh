# Starts outrider's updater: /bin/sh runs it for outrider-updater.service.
# The updater runs a copy of the installed program, because it replaces that program. The copy is of links: it takes no room,
# and keeps what dpkg replaces. While an installation isn't decided yet (pending.json) the copy of the version before stays:
# whatever was cut off, and however broken the new version is, this one finishes it or takes it back.
set -eu

program=${OUTRIDER_PROGRAM_FOLDER:-/opt/outrider}
home=${OUTRIDER_UPDATER_HOME:-/var/lib/outrider-updater}
code=$home/code

if [ ! -e "$home/pending.json" ] || [ ! -x "$code/bin/python3" ]; then
  rm -rf "$code.new" "$code"
  # another disk: the files themselves
  if ! cp -al "$program" "$code.new" 2>/dev/null; then
    rm -rf "$code.new"
    cp -a "$program" "$code.new"
  fi
  sync
  mv "$code.new" "$code"
fi

export OUTRIDER_UPDATER_CODE="$code"
exec "$code/bin/python3" -m outrider sidekick run --config "${1:-/etc/outrider/updater.toml}"
