"""The one part of an uploaded form that is a file, piece by piece: a payload may be larger than memory (RFC 7578)."""

import re

from outrider.core.errors import ConfigError

MAX_HEAD_BYTES = 8 * 1024
_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_IS_FILE = re.compile(rb'(?im)^content-disposition:\s*form-data;.*\bname="file"')


class FilePart:
    """Takes the bytes of a body, and gives those of its part ``file``, which must be the first one.

    Args:
        content_type: The header, with the boundary.

    Raises:
        ConfigError: it isn't a form.
    """

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.match(content_type.strip())
        if found is None:
            raise ConfigError("package-upload: send multipart/form-data with the file in its field `file`")
        boundary = (found[1] or found[2]).encode("latin-1", "replace")
        self._first, self._end = b"--" + boundary, b"\r\n--" + boundary
        self._waiting = b""
        self._in_file = self.is_whole = False

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of the file, often fewer than came in.

        Raises:
            ConfigError: the first part isn't the file, or has no end to its head.
        """
        if self.is_whole:
            return b""
        self._waiting += chunk
        if not self._in_file and not self._read_head():
            return b""
        place = self._waiting.find(self._end)
        if place >= 0:
            file, self._waiting, self.is_whole = self._waiting[:place], b"", True
            return file
        # its end may have begun at the end of what is there
        kept = len(self._end) - 1
        file, self._waiting = self._waiting[:-kept], self._waiting[-kept:]
        return file

    def _read_head(self) -> bool:
        head, blank, rest = self._waiting.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            raise ConfigError("package-upload: the head of the form's first part has no end")
        if not blank:
            return False
        first, _, fields = head.partition(b"\r\n")
        if first != self._first or not _IS_FILE.search(fields):
            raise ConfigError("package-upload: the form's first field must be `file`, with the payload")
        self._in_file, self._waiting = True, rest
        return True
