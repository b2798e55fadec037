#!/bin/sh
# dpkg calls it with "remove" or "upgrade", rpm with 0 (the last) or 1 (upgrade).
set -e

case ${1:-} in
remove | 0)
  if [ -d /run/systemd/system ]; then
    systemctl stop outrider-serve.service || true
  fi
  # of the libraries that go; those that outrider keeps are compiled again when they are used
  find /opt/outrider -name '*.pyc' -delete 2>/dev/null || true
  find /opt/outrider -depth -type d -name __pycache__ -empty -delete 2>/dev/null || true
  ;;
upgrade)
  find /opt/outrider -name '*.pyc' -delete 2>/dev/null || true
  ;;
esac
