"""Whose fault a failure is: the one place that decides it, from what was found out.

A driver or a worker says what it has seen (its *evidence*), never whose fault that is. ``judge`` says it, and the
chart's guards ask for the answer through the memory.

- *release*: what was seen lies in the release. It blocks the release for everybody until one instance has committed it
  (P5). After that it counts as this instance's failure, for the policy's threshold (design, section 3, rule 14).
- *machine*: what was seen lies in this machine: its mounts, disk, settings, programs, ports or network. It never
  blocks a release (P11). This instance waits with the reason.
- *world*: nobody's yet. Nothing was seen that speaks against the release or the machine; it is tried again.
- *operator*: a person wanted it.

What could be either is the machine's or nobody's: a release that is bad everywhere is found out by the next instance,
a release that was blocked for one machine's trouble has to be found out by a person.
"""

import errno
from collections.abc import Mapping
from typing import Literal

Blame = Literal["release", "world", "machine", "operator"]

Evidence = Literal[
    "unknown",
    # seen in the release
    "bad-payload", "no-exec-bit", "not-a-program", "program-left-out", "ended", "unhealthy", "unproved", "task-failed",
    "worse",
    # seen in this machine, and there until somebody changes it
    "unfit", "untrusted", "noexec", "wrong-setting", "no-interpreter", "other-architecture", "no-permission",
    "bad-name", "not-a-file",
    # seen in this machine, and perhaps gone the next time
    "disk-full", "read-only", "no-port", "no-resources", "network", "not-now",
    # seen in neither
    "no-answer", "unreachable", "lost-lease", "undecided",
    # a person's word
    "undone",
]  # fmt: skip
"""What was found out about a failure.

``bad-payload``: damaged, unsafe or of a kind that nothing reads. ``no-exec-bit``: the program has no x bit in the
archive. ``not-a-program``: neither a program nor a script with a ``#!`` line. ``program-left-out``: the payload lacks
the program that an earlier payload on this machine has. ``ended``: it ended by itself. ``unhealthy``: it answered, and
not well. ``unproved``: it didn't prove healthy before its deadline. ``task-failed``: a task that must run before
it has failed.
``worse``: its analysis under traffic failed. ``undecided``: that analysis had too little to go by.
``unfit``: the runtime here runs no payloads of its kind. ``untrusted``: it lacks a signature
that this machine asks for. ``noexec``: the mount forbids running programs.
``wrong-setting``: a setting names a program, or an address, that isn't there. ``no-interpreter``: the program needs
another one that isn't on this machine. ``other-architecture``: it was built for another processor.
``no-permission``: the system forbids it.
``bad-name``: the file system here can't store a name in it. ``not-a-file``: something else stands in its place.
``read-only``: the kernel mounts a disk so after an error, until the next check or boot. ``network``: an address, a
name or a way that is there at other times. ``not-now``: the operator's own program asks to be called later.
"""

_JUDGED: Mapping[Evidence, Blame] = {
    "unknown": "world",
    "bad-payload": "release",
    "no-exec-bit": "release",
    "not-a-program": "release",
    "program-left-out": "release",
    "ended": "release",
    "unhealthy": "release",
    "unproved": "release",
    "task-failed": "release",
    "worse": "release",
    "unfit": "machine",
    "untrusted": "machine",
    "noexec": "machine",
    "wrong-setting": "machine",
    "no-interpreter": "machine",
    "other-architecture": "machine",
    "no-permission": "machine",
    "bad-name": "machine",
    "not-a-file": "machine",
    "disk-full": "machine",
    "read-only": "machine",
    "no-port": "machine",
    "no-resources": "machine",
    "network": "machine",
    "not-now": "machine",
    "no-answer": "world",
    "unreachable": "world",
    "lost-lease": "world",
    "undecided": "world",
    "undone": "operator",
}

PASSING: frozenset[Evidence] = frozenset({"disk-full", "read-only", "no-port", "no-resources", "network", "not-now"})
"""Trouble of a machine that the next attempt may not meet."""


_ERRNO: Mapping[int, Evidence] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "disk-full"),
    **dict.fromkeys((errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE), "no-resources"),
    errno.EROFS: "read-only",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "no-permission"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST), "not-a-file"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EILSEQ), "bad-name"),
}


def seen_in(number: int | None) -> Evidence:
    """What the number of an ``OSError`` says that this machine's files answered with."""
    return _ERRNO.get(number or 0, "unknown")


def judge(evidence: Evidence) -> Blame:
    """Whose fault it is."""
    return _JUDGED[evidence]


def lasts(evidence: Evidence) -> bool:
    """Whether trying again is no use before somebody has changed this machine."""
    return judge(evidence) == "machine" and evidence not in PASSING
