#!/bin/sh
# dpkg calls it with "configure" and the version before, rpm with 1 (new) or 2 (upgrade).
set -e

case ${1:-} in
configure | 1 | 2) ;;
*) exit 0 ;;
esac

/opt/outrider/bin/python3 -m compileall -q -j 0 /opt/outrider/lib >/dev/null || true
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  if [ -n "${2:-}" ] || [ "${1:-}" = 2 ]; then
    systemctl try-restart outrider-serve.service || true
  fi
fi
