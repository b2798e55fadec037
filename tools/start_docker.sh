#!/usr/bin/env bash
# Makes a Docker daemon answer: the one that runs already, or one that this starts in the background.
#
# For machines without an init system (CI, containers, sandboxes). Tries plain `dockerd`, then with what restricted kernels
# can do without: no iptables and no bridge (containers then use the host's network), plain copies instead of overlays.
# The pid of a daemon started here is left in .cache/dockerd.pid, its log in .cache/dockerd.log.
#
# Usage: tools/start_docker.sh          starts one when none answers
#        tools/start_docker.sh --stop   ends the one that an earlier call of this checkout started, and no other
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
attempt_s=40 # a first start on a slow disk took 12 s; a daemon that can't work ends by itself much sooner

fail() {
  echo "start_docker: $*" >&2
  exit 1
}

PATH=$PATH:/usr/sbin:/sbin
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)

if [ "${1:-}" = --stop ]; then
  pid=$(cat "$cache/dockerd.pid" 2>/dev/null) || exit 0
  # the number may have gone to another program since
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = sudo ]; then
    "${as_root[@]}" kill "$pid"
    for _ in $(seq 60); do [ -e "/proc/$pid" ] && sleep 0.5 || break; done
    [ ! -e "/proc/$pid" ] || fail "dockerd (pid $pid) does not end"
    echo "start_docker: ended dockerd (pid $pid)"
  fi
  rm -f "$cache/dockerd.pid"
  exit 0
fi

case ${DOCKER_HOST:-unix:///var/run/docker.sock} in
  unix://*) socket=${DOCKER_HOST:-unix:///var/run/docker.sock} socket=${socket#unix://} ;;
  *) echo "start_docker: DOCKER_HOST is set: using that daemon" && exit 0 ;;
esac

# The command line client is not needed by anything else here (Debian 13 packs it apart), so ask the socket itself.
answers() {
  python3 - "$socket" 2>/dev/null <<'PYTHON'
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(5)
    connection.connect(sys.argv[1])
    connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(0 if b" 200 " in connection.recv(64) else 1)
PYTHON
}

if answers; then
  echo "start_docker: a daemon answers already"
  exit 0
fi
[ -z "${DOCKER_HOST:-}" ] || fail "the daemon that DOCKER_HOST names does not answer"
[ ! -e "$socket" ] || [ -r "$socket" ] || fail "no permission to use $socket: join the group docker"

command -v dockerd >/dev/null || fail "dockerd is not installed: apt-get install docker.io"
[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || fail "no daemon runs, and starting one needs root"

mkdir -p "$cache"
: >"$cache/dockerd.log"

# Starts a daemon with the given options; succeeds when it answers in time, else leaves nothing of it behind.
try() {
  local pid deadline
  echo "--- dockerd $*" >>"$cache/dockerd.log"
  # a session of its own: Ctrl-C at the caller's terminal and the end of `make` must not take it down
  setsid "${as_root[@]}" dockerd --group "$(id -g)" "$@" >>"$cache/dockerd.log" 2>&1 </dev/null &
  pid=$!
  deadline=$((SECONDS + attempt_s))
  while [ $SECONDS -lt $deadline ] && kill -0 "$pid" 2>/dev/null; do
    if answers; then
      echo "$pid" >"$cache/dockerd.pid"
      echo "start_docker: started dockerd${*:+ $*} (pid $pid, log .cache/dockerd.log)"
      return 0
    fi
    sleep 0.5
  done
  "${as_root[@]}" kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  return 1
}

try && exit 0
try --iptables=false --bridge=none && exit 0
try --storage-driver=vfs && exit 0
try --iptables=false --bridge=none --storage-driver=vfs && exit 0
tail -n 5 "$cache/dockerd.log" >&2
fail "dockerd does not start here, see .cache/dockerd.log"
