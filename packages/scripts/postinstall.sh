#!/bin/sh
# dpkg calls it with "configure" and the version before, rpm with 1 (new) or 2 (upgrade).
set -e

case ${1:-} in
configure | 1 | 2) ;;
*) exit 0 ;;
esac

systemd-sysusers outrider.conf
# settings may hold passwords for etcd
if [ "$(stat -c %G /etc/outrider)" = root ]; then
  chgrp outrider /etc/outrider/instances
  chmod 0750 /etc/outrider/instances
fi
# compiled for this very Python; without it each start of a command would do it again
/opt/outrider/bin/python3 -m compileall -q -j 0 /opt/outrider/lib >/dev/null || true

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  # an upgrade: their apps go on serving, and a swap goes on where it was
  if [ -n "${2:-}" ] || [ "${1:-}" = 2 ]; then
    systemctl try-restart 'outrider-sidekick@*.service' outrider-sidekicks.service \
      'outrider-balancer-agent@*.service' || true
  fi
fi
