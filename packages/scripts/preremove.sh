#!/bin/sh
# dpkg calls it with "remove" or "upgrade", rpm with 0 (the last) or 1 (upgrade).
set -e

case ${1:-} in
remove | 0)
  # apps go on running: only what belongs to outrider ends. The drain at shutdown first: it runs our program at its end
  if [ -d /run/systemd/system ]; then
    systemctl stop 'outrider-shutdown@*.service' || true
    systemctl stop 'outrider-sidekick@*.service' outrider-sidekicks.service 'outrider-balancer-agent@*.service' || true
  fi
  find /opt/outrider -name '*.pyc' -delete 2>/dev/null || true
  find /opt/outrider -depth -type d -name __pycache__ -empty -delete 2>/dev/null || true
  ;;
upgrade)
  # what the new version doesn't have must not stay as a compiled module
  find /opt/outrider -name '*.pyc' -delete 2>/dev/null || true
  ;;
esac
