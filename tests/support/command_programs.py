"""Programs as an operator writes them for the runtime ``command``: one script with a verb for each action.

It runs the app of ``tests.support.workloads`` as a daemon, and keeps its pid in the workload's folder. Files in the
folder of switches change what it does: ``start.exits`` holds the code that ``start`` ends with, ``find.hangs`` makes
``find`` hang, ``stop.says`` is printed first.
"""

import sys
from pathlib import Path

from outrider.runtimes.command import CommandSettings

UPDATER = """#!/bin/sh
# $1 is the action. All else is in the environment.
set -u
switches=%(switches)s
home=${OUTRIDER_WORKLOAD_DIR:-}
prepared=${OUTRIDER_PREPARED_DIR:-}
echo "$1" >>"$switches/calls"
if [ -f "$switches/$1.says" ]; then cat "$switches/$1.says"; fi
if [ -f "$switches/$1.hangs" ]; then exec sleep 600; fi
if [ -f "$switches/$1.exits" ]; then exit "$(cat "$switches/$1.exits")"; fi
case $1 in
  prepare)
    echo "unpacking $UPDATE_SERVICE_VERSION"
    tar -xzf "$OUTRIDER_PAYLOAD" -C "$prepared" || { echo "damaged: not a tar file"; exit 65; } ;;
  check)
    [ -f "$prepared/app.py" ] || { echo "damaged: not a tar file"; exit 65; } ;;
  start)
    env | sort >"$switches/start.env"
    cp "$prepared/app.py" "$home/app.py"
    setsid %(python)s "$home/app.py" </dev/null &
    echo $! >"$home/pid"
    echo "handle=pid $(cat "$home/pid")" ;;
  find)
    [ -f "$home/pid" ] || exit 3
    read -r pid <"$home/pid"
    kill -0 "$pid" 2>/dev/null || exit 3
    # a zombie, where nobody reaps
    if grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; then exit 3; fi
    echo "handle=pid $pid" ;;
  stop)
    read -r pid <"$home/pid"
    kill "$pid" 2>/dev/null || true
    rm -f "$home/pid" ;;
esac
exit 0
"""


def command_settings(folder: Path, **changes: object) -> CommandSettings:
    """Settings whose programs are the script, which is made in ``folder`` with ``folder/switches``."""
    switches, script = folder / "switches", folder / "example-update"
    switches.mkdir(exist_ok=True)
    script.write_text(UPDATER % {"switches": switches, "python": sys.executable})
    script.chmod(0o755)
    words = {name: (str(script), name) for name in ("prepare", "check", "start", "find", "stop")}
    values: dict[str, object] = {**words, "find_interval_s": 0.1, **changes}
    return CommandSettings(**values)  # type: ignore[arg-type]
