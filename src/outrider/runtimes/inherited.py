"""What of our own environment an app or an operator's program may see."""

import re
from collections.abc import Mapping

_NOT_PASSED_ON = re.compile(r"OUTRIDER_.*|NOTIFY_SOCKET|WATCHDOG_(USEC|PID)|LISTEN_(FDS|PID|FDNAMES)|GRPC_VERBOSITY")
"""Ours and systemd's words to us: an app that sent READY=1 or read our etcd password would be a nasty surprise."""


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` without ``OUTRIDER_*`` and systemd's notification variables."""
    return {name: text for name, text in environment.items() if not _NOT_PASSED_ON.fullmatch(name)}
