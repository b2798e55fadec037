"""The operator's checks, each asked once. Whatever says neither good nor bad is no data."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from outrider.config.analysis import AnalysisCheck, filled
from outrider.core.analysis.answers import NoData, judged, parse_condition, prometheus_values, told_number, told_result
from outrider.core.analysis.results import Finding, Result
from outrider.failpoints import failpoint
from outrider.http import JSON, NoAnswer, get
from outrider.runtimes import TASK

MAX_BYTES = 1024 * 1024
_SHOWN = 200
"""Characters of what a command prints that are kept."""


def ask(check: AnalysisCheck, facts: Mapping[str, str]) -> Finding:
    """Ask ``check`` once, in about ``timeout_s`` at most.

    Args:
        facts: What replaces the placeholders, see ``config.analysis.PLACEHOLDERS``.
    """
    try:
        with failpoint("analysis.ask"):
            result, words = _ask(check, facts)
    except NoData as reason:
        result, words = "no data", f"no data: {reason}"
    return Finding(check=check.name, result=result, words=words)


def _ask(check: AnalysisCheck, facts: Mapping[str, str]) -> tuple[Result, str]:
    match check.kind:
        case "prometheus":
            query = quote(filled(check.query, facts), safe="")
            url = f"{filled(check.url, facts).rstrip('/')}/api/v1/query?query={query}&timeout={check.timeout_s:g}s"
            status, body = fetched(url, check.timeout_s, check.token_file)
            values = prometheus_values(body)
            if status != 200:
                raise NoData(f"Prometheus answers {status}")
            return judged(values, parse_condition(check.condition))
        case "http":
            status, body = fetched(filled(check.url, facts), check.timeout_s, check.token_file)
            if not 200 <= status < 300:
                raise NoData(f"it answers {status}")
            if check.condition:
                return judged((told_number(body, check.field),), parse_condition(check.condition))
            return told_result(body)
        case "command":
            return _run(check, facts)
        case _:
            assert_never(check.kind)


def fetched(url: str, timeout_s: float, token_file: Path | None = None) -> tuple[int, bytes]:
    """Status and body of one GET.

    Raises:
        NoData: no whole answer came in time, or it is longer than ``MAX_BYTES``.
    """
    headers = dict(JSON)
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
        except (OSError, UnicodeDecodeError) as error:
            raise NoData(f"{token_file}: {getattr(error, 'strerror', None) or error}") from error
    try:
        answer = get(url, timeout_s=timeout_s, max_bytes=MAX_BYTES, headers=headers)
    except NoAnswer as error:
        raise NoData(_plain(str(error))) from error
    if len(answer.body) > MAX_BYTES:
        raise NoData(f"its answer is longer than {MAX_BYTES} bytes")
    return answer.status, answer.body


def _run(check: AnalysisCheck, facts: Mapping[str, str]) -> tuple[Result, str]:
    words = [filled(word, facts) for word in check.command]
    try:
        process = subprocess.Popen(
            words,
            cwd="/",
            env=_environment(facts),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise NoData(f"{words[0]}: {error.strerror or error}") from error
    try:
        output, _ = process.communicate(timeout=check.timeout_s)
    except subprocess.TimeoutExpired as error:
        raise NoData(f"no answer in {check.timeout_s:g} s") from error
    finally:
        _end(process)
    said = next((line.strip() for line in reversed(output.decode(errors="replace").splitlines()) if line.strip()), "")
    said = said[:_SHOWN]
    match process.returncode:
        case 0:
            return "pass", said or "exit 0"
        case 1:
            return "fail", said or "exit 1"
        case code:
            how = f"exit {code}" if code > 0 else f"signal {-code}"
            raise NoData(f"{how}: {said}" if said else how)


def _environment(facts: Mapping[str, str]) -> dict[str, str]:
    """Ours without what is meant for the sidekick, and the facts by their names in capitals."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("OUTRIDER_", "NOTIFY_"))}
    return {**inherited, **{name.upper(): text for name, text in facts.items()}, TASK: "analysis"}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave nothing of a command behind: neither a child that still runs, nor an open pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _plain(text: str) -> str:
    """The network's own words, without the library's."""
    lower = text.lower()
    for phrase in ("connection refused", "connection reset", "no route to host", "network is unreachable"):
        if phrase in lower:
            return phrase
    if "name or service not known" in lower or "name resolution" in lower or "failed to resolve" in lower:
        return "its name is not known"
    if "certificate verify failed" in lower:
        return "its certificate is refused"
    return text if len(text) <= _SHOWN else text[:_SHOWN]
