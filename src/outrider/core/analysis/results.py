"""The three results of a check. What gives no data never passes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Result = Literal["pass", "fail", "no data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check has found.

    Attributes:
        check: Its name, as the operator calls it.
        words: For a person: ``0.02, and must be below 0.01``.
    """

    check: str
    result: Result
    words: str

    def __str__(self) -> str:
        return f"{self.check}: {self.words}"


def worst(findings: Iterable[Finding]) -> Result:
    """What several checks come to: one that fails decides; else one without data; no check at all is no data."""
    found = {finding.result for finding in findings}
    if "fail" in found:
        return "fail"
    return "pass" if found == {"pass"} else "no data"


def told(findings: Iterable[Finding], result: Result) -> str:
    """The findings that led to ``result``, in words; of a pass all."""
    return "; ".join(str(one) for one in findings if one.result == result)
