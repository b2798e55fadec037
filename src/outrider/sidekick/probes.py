"""One probe of an app: an HTTP request, a TCP connection or a command; and the setting to look at when it fails.

Every function returns an empty text for a healthy answer, else what was wrong in a few words.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from outrider.config.sections import ProbeSettings
from outrider.core.errors import DriverError
from outrider.http import NoAnswer, OutOfTime, get
from outrider.runtimes import TASK

THIS_MACHINE = "this machine: "
"""What an answer begins with that says nothing of the app: the probe could not be made here."""

_BODY_LIMIT_BYTES = 64 * 1024
_HEADERS = {"Accept": "*/*", "User-Agent": "outrider-probe"}
_SHOWN = 200
"""Characters of what a command prints that are kept."""
_NO_WAY = ("network is unreachable", "network is down", "no route to host", "cannot assign requested address")
"""The kernel's words when it has no way to an address: none of them comes from the app."""
_NO_TLS, _BAD_CERTIFICATE, _NO_HTTP = "no TLS answer", "certificate refused", "no HTTP answer"

_HINTS: tuple[tuple[str, str], ...] = (
    (r"30[0-8]", "a redirect is not followed: check probe.path, probe.scheme, or allow it in probe.statuses"),
    (r"400|421", "check probe.host (the Host header) and probe.scheme"),
    (r"40[137]|511", "check probe.headers (credentials), or choose a probe.path that needs none"),
    (r"40[456]", "check probe.path"),
    (
        rf"{_NO_HTTP}|connection (closed|reset)",
        "check probe.kind (an app without HTTP needs tcp or command) and probe.scheme",
    ),
    (_NO_TLS, "check probe.scheme"),
    (rf"{_BAD_CERTIFICATE}.*", "check probe.host, probe.ca_file or probe.verify"),
)
"""Pattern of an answer -> the settings that may be to blame for it."""


Health = Callable[[str], str]
"""What the runtime says of the workload at an address, as ``HealthReporter.health``."""


def ask(url: str, settings: ProbeSettings, health: Health | None = None) -> str:
    """Probe the app at ``url`` once, in at most ``timeout_s``.

    Args:
        url: ``http://host:port`` without a slash at the end.
        health: Asked when ``probe.kind`` is healthcheck.
    """
    if settings.kind == "healthcheck":
        return _ask_runtime(url, health)
    return _KINDS[settings.kind](url, settings)


def _ask_runtime(url: str, health: Health | None) -> str:
    assert health is not None, "the configuration takes healthcheck only with a runtime that reports it"
    try:
        return health(url)
    except DriverError as error:
        return f"{THIS_MACHINE}{error}"


def name_of(settings: ProbeSettings) -> str:
    """What is probed, for the reason: ``/health``, ``TCP connection``, ``pg_isready``."""
    match settings.kind:
        case "http":
            return settings.path
        case "tcp":
            return "TCP connection"
        case "healthcheck":
            return "HEALTHCHECK"
        case _:
            return os.path.basename(settings.command[0])


def hint(answer: str) -> str:
    """``; check probe.path`` for an answer that a setting may be to blame for, else empty."""
    found = next((text for pattern, text in _HINTS if re.fullmatch(pattern, answer)), "")
    return f"; {found}" if found else ""


def says_nothing_of_the_app(answer: str) -> bool:
    """Whether the app could not be asked: the address is out of reach, or the probe can't be made here."""
    return answer in _NO_WAY or answer.startswith(THIS_MACHINE)


def is_healthy(status: int, statuses: tuple[str, ...]) -> bool:
    """Whether an HTTP status is one of ``200-299`` or ``204``."""
    for each in statuses:
        first, _, last = each.partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False


def _ask_http(url: str, settings: ProbeSettings) -> str:
    """Every request is a connection of its own, as a new client's would be; redirects and proxies are not used."""
    headers = _HEADERS | dict(settings.headers) | ({"Host": settings.host} if settings.host else {})
    try:
        # Read what belongs to the answer: closing on unread bytes shows as a reset in the app's own log.
        answer = get(
            f"{settings.scheme}{url.removeprefix('http')}{settings.path}",
            timeout_s=settings.timeout_s,
            max_bytes=_BODY_LIMIT_BYTES,
            headers=headers,
            verify=str(settings.ca_file) if settings.ca_file is not None and settings.verify else settings.verify,
            server_name=_without_port(settings.host),
        )
    except OutOfTime as error:
        return str(error)
    except NoAnswer as error:
        return _plain(str(error))
    return "" if is_healthy(answer.status, settings.statuses) else str(answer.status)


def _ask_tcp(url: str, settings: ProbeSettings) -> str:
    host, port = _place(url)
    try:
        socket.create_connection((host, port), timeout=settings.timeout_s).close()
    except TimeoutError:
        return f"no answer in {settings.timeout_s:g} s"
    except OSError as error:
        return _plain(error.strerror or str(error), otherwise=str(error))
    return ""


def _ask_command(url: str, settings: ProbeSettings) -> str:
    host, port = _place(url)
    known = {"url": url, "host": host, "port": str(port)}
    words = [re.sub(r"\{(url|host|port)\}", lambda found: known[found[1]], word) for word in settings.command]
    try:
        process = subprocess.Popen(
            words,
            cwd="/",
            env=_environment(known),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"{THIS_MACHINE}probe.command: {words[0]}: {error.strerror or error}"
    try:
        output, _ = process.communicate(timeout=settings.timeout_s)
    except subprocess.TimeoutExpired:
        return f"no answer in {settings.timeout_s:g} s"
    finally:
        _end(process)
    return "" if process.returncode == 0 else _status(process.returncode, output)


_KINDS: Mapping[str, Callable[[str, ProbeSettings], str]] = {
    "http": _ask_http,
    "tcp": _ask_tcp,
    "command": _ask_command,
}


def _environment(known: Mapping[str, str]) -> dict[str, str]:
    """Ours without what is meant for the sidekick, and what the app is told of its place."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("OUTRIDER_", "NOTIFY_"))}
    return {**inherited, "HOST": known["host"], "PORT": known["port"], "URL": known["url"], TASK: "probe"}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave nothing of a command behind: neither a child that still runs, nor an open pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _status(code: int, output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    said = f": {lines[-1][:_SHOWN]}" if lines else ""
    return (f"exit {code}" if code >= 0 else f"signal {-code}") + said


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _plain(text: str, *, otherwise: str = _NO_HTTP) -> str:
    lower = text.lower()
    for phrase in ("connection refused", "connection reset", *_NO_WAY):
        if phrase in lower:
            return phrase
    if "certificate verify failed" in lower or "doesn't match" in lower:
        reason = re.search(r"certificate verify failed: ([^(\\]*)", text)
        return f"{_BAD_CERTIFICATE}: {reason[1].strip()}" if reason else _BAD_CERTIFICATE
    if "ca certificate bundle" in lower:
        return f"{THIS_MACHINE}probe.ca_file can't be read"
    if "ssl" in lower:
        return _NO_TLS
    if "badstatusline" in lower:
        return _NO_HTTP
    if "closed connection" in text or "Connection aborted" in text or "IncompleteRead" in text:
        return "connection closed"
    return otherwise
