"""Whose fault it is follows from what was found out, and from nothing else."""

import errno
from typing import get_args

import pytest

from outrider.core.blame import Evidence, judge, lasts, seen_in


@pytest.mark.parametrize("evidence", get_args(Evidence))
def test_every_evidence_is_judged(evidence: Evidence) -> None:
    assert judge(evidence) in ("release", "machine", "world", "operator")
    assert not lasts(evidence) or "machine" == judge(evidence)


@pytest.mark.parametrize(
    "evidence",
    [
        "noexec",
        "wrong-setting",
        "bad-name",
        "disk-full",
        "read-only",
        "no-port",
        "no-interpreter",
        "network",
        "no-permission",
        "unfit",
        "untrusted",
    ],
)
def test_trouble_of_a_machine_is_never_the_releases(evidence: Evidence) -> None:
    assert "machine" == judge(evidence)


@pytest.mark.parametrize("evidence", ["disk-full", "read-only", "no-port", "network", "no-resources"])
def test_what_may_pass_is_tried_again(evidence: Evidence) -> None:
    assert not lasts(evidence)


@pytest.mark.parametrize("evidence", ["unknown", "no-answer", "unreachable", "lost-lease"])
def test_what_speaks_against_neither_is_nobodys_yet(evidence: Evidence) -> None:
    assert "world" == judge(evidence)


@pytest.mark.parametrize(
    ("number", "evidence"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EROFS, "read-only"),
        (errno.ELOOP, "not-a-file"),
        (errno.EMFILE, "no-resources"),
        (errno.EILSEQ, "bad-name"),
        (errno.EIO, "unknown"),
        (None, "unknown"),
    ],
)
def test_what_an_error_of_the_system_shows(number: int | None, evidence: Evidence) -> None:
    assert evidence == seen_in(number)
