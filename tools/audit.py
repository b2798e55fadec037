"""``make audit``: asks a vulnerability service about every package of a list, and says clearly what was not checked.

pip-audit leaves with 0 where it could look up nothing. Here that is an error: exit 0 is "all checked, nothing known",
1 "something is known", 2 "not all could be checked".
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
LISTS = ("constraints.txt", "tools/supply.txt")
PROGRAM = ROOT / ".cache/supply/bin/pip-audit"
LIMIT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of it: the lines to print, and the exit code."""

    lines: tuple[str, ...]
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What pip-audit said of one list of packages."""

    known: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = field(default=())
    checked: int = 0


def read_report(text: str) -> Told:
    """Read pip-audit's JSON.

    Shape: ``dependencies``, each with ``name`` and either ``skip_reason`` or ``version`` and ``vulns``, each of those
    with ``id`` and ``fix_versions``.

    Raises:
        ValueError: it is something else.
    """
    try:
        known, unchecked, checked = [], [], 0
        for one in json.loads(text)["dependencies"]:
            if "skip_reason" in one:
                unchecked.append(f"{one['name']}: {one['skip_reason']}")
                continue
            checked += 1
            for found in one["vulns"]:
                mended = " or ".join(found["fix_versions"]) or "no version yet"
                known.append(f"{one['name']} {one['version']}: {found['id']}, mended in {mended}")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report of pip-audit: {text[:200]!r}") from error
    return Told(known=tuple(known), unchecked=tuple(unchecked), checked=checked)


def judge(told: Sequence[Told]) -> Verdict:
    """One verdict on all lists."""
    known = tuple(dict.fromkeys(line for one in told for line in one.known))
    unchecked = tuple(dict.fromkeys(line for one in told for line in one.unchecked))
    checked = sum(one.checked for one in told)
    if not checked:
        why = f" ({unchecked[0]})" if unchecked else ""
        return Verdict(lines=(f"audit: nothing was checked: the vulnerability service knows no package{why}",), code=2)
    lines = [f"audit: {line}" for line in (*known, *(f"not checked: {line}" for line in unchecked))]
    lines.append(f"audit: {checked} packages checked, {len(known)} vulnerabilities, {len(unchecked)} not checked")
    return Verdict(lines=tuple(lines), code=1 if known else 2 if unchecked else 0)


def ask(name: str) -> Told:
    """Let pip-audit look up the packages of one list.

    Raises:
        ValueError: it gives no answer; the text says why.
    """
    words = [str(PROGRAM), "--format=json", "--progress-spinner=off", "--disable-pip", "--require-hashes", f"-r={name}"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(str(error)) from error
    if not done.stdout.strip():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(lines[-1] if lines else f"pip-audit left with {done.returncode}")
    return read_report(done.stdout)


def main() -> int:
    """Audit all lists."""
    try:
        verdict = judge([ask(name) for name in LISTS])
    except ValueError as error:
        verdict = Verdict(lines=(f"audit: nothing was checked: {error}",), code=2)
    print(*verdict.lines, sep="\n", file=sys.stderr if verdict.code else sys.stdout)
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
