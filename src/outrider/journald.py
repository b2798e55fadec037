"""Entries for systemd's journal: a sentence, a priority and fields of our own, without libsystemd.

A unit's stdout and stderr lead to journald, and ``JOURNAL_STREAM`` says so (systemd.exec(5)). Such a process may send
whole entries to journald's socket instead; where that can't be, the sentence goes to the stream behind its priority.
"""

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO, TextIO

SOCKET = "/run/systemd/journal/socket"
_SEND_TIMEOUT_S = 1.0  # journald reads in its main loop; a line isn't worth waiting for longer
_MAX_NAME = 64  # characters; journald drops fields with a longer name
_PRIORITIES = ((40, 3), (30, 4), (20, 6))
"""Least level of logging and loguru -> syslog's priority: err, warning, info. Below them it is debug, 7."""


def priority_of(level: int) -> int:
    """The priority of syslog(3) for a level of logging or loguru: 50 and above is 2, critical."""
    return 2 if level >= 50 else next((priority for least, priority in _PRIORITIES if level >= least), 7)


def reads_stream(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether journald reads what is written to ``stream``.

    ``JOURNAL_STREAM`` holds device and inode of the stream that a unit's process was given. A program that such a
    process starts inherits the variable; the numbers tell whether its own stream is still that one.
    """
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # io.UnsupportedOperation, a stream without a file, is both
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


class Journal:
    """Writes entries; to ``stream`` when journald's socket can't be reached."""

    def __init__(self, stream: TextIO, path: str = SOCKET) -> None:
        self._stream, self._path = stream, path

    def write(self, sentence: str, priority: int, fields: Mapping[str, str]) -> None:
        """One entry.

        Args:
            sentence: One line.
            priority: 0 to 7, as in syslog(3).
            fields: Name -> text. What journald would refuse in a name becomes an underscore.
        """
        own = {"MESSAGE": sentence, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "outrider"}
        if not self._send(encoded({**fields, **own})):
            self._stream.write(f"<{priority}>{sentence}\n")
            self._stream.flush()

    def _send(self, entry: bytes) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_SEND_TIMEOUT_S)
            try:
                sender.sendto(entry, self._path)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                sender.connect(self._path)
                with _sealed(entry) as file:
                    socket.send_fds(sender, [b""], [file.fileno()])
            return True
        return False


def encoded(fields: Mapping[str, str]) -> bytes:
    """An entry in journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    parts = []
    for name, value in fields.items():
        key = re.sub("[^A-Z0-9_]", "_", name.upper()).lstrip("_")[:_MAX_NAME].encode()
        text = value.encode(errors="replace")
        if b"\n" in text:
            parts.append(key + b"\n" + struct.pack("<Q", len(text)) + text + b"\n")
        else:
            parts.append(key + b"=" + text + b"\n")
    return b"".join(parts)


def _sealed(entry: bytes) -> BinaryIO:
    """An entry that is too large for a datagram, as a file in memory that nobody can change any more."""
    file = os.fdopen(os.memfd_create("outrider-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC), "r+b")
    file.write(entry)
    file.flush()
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file
