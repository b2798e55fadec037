#!/bin/sh
# dpkg calls it with "remove", "purge" and other words, rpm with 0 (the last) or 1 (upgrade).
set -e

case ${1:-} in
remove | 0)
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
  fi
  ;;
purge)
  # its unit has a dynamic user, whose folder this is
  if [ -e /var/lib/private/outrider-serve/payloads ]; then
    echo "outrider-server: /var/lib/private/outrider-serve holds uploaded payloads, and stays" >&2
  fi
  ;;
esac
