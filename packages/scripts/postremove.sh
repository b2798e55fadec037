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
  # apps run below /var/lib/outrider, and instances that still have a journal there are not ours to forget
  if [ -n "$(ls -A /var/lib/outrider 2>/dev/null)" ]; then
    echo "outrider: /var/lib/outrider holds apps and journals of instances, and stays" >&2
  else
    rmdir /var/lib/outrider 2>/dev/null || true
  fi
  rmdir /etc/outrider/instances /etc/outrider 2>/dev/null ||
    [ ! -d /etc/outrider ] || echo "outrider: /etc/outrider holds your settings, and stays" >&2
  ;;
esac
