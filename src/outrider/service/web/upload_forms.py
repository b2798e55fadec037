"""A form with a file, piece by piece: a payload may be larger than memory (RFC 7578).

The file is the form's last field, so all that has to be checked is there before the first byte of it is stored.
"""

import re

from outrider.core.errors import ConfigError

MAX_HEAD_BYTES = 8 * 1024
MAX_FIELD_BYTES = 64 * 1024
MAX_FIELDS = 20
_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(r'(?i)^content-disposition:\s*form-data;(?:.*;)?\s*name="([^"]*)"', re.MULTILINE)
_FILENAME = re.compile(r'(?i)^content-disposition:\s*form-data;.*;\s*filename="([^"]*)"', re.MULTILINE)


class UploadForm:
    """Takes the bytes of a body, and gives those of its file.

    Attributes:
        fields: Those before the file.
        filename: As the browser named the file; None until it has begun.
        is_whole: The file has ended.
    """

    def __init__(self, content_type: str) -> None:
        """``content_type``: the header, with the boundary.

        Raises:
            ConfigError: it isn't such a form.
        """
        found = _BOUNDARY.match(content_type.strip())
        if found is None:
            raise ConfigError("send a form with a file: multipart/form-data")
        self._end = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
        self._waiting = b"\r\n"  # so the first boundary is found as the others are
        self._field: str | None = None
        self._is_inside = False
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.is_whole = False

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes of the file; empty until it begins.

        Raises:
            ConfigError: it is no form, a field is too long, or there are too many.
        """
        if self.is_whole:
            return b""
        self._waiting += chunk
        while self.filename is None:
            if not (self._read_field() if self._is_inside else self._read_head()):
                return b""
        place = self._waiting.find(self._end)
        if place >= 0:
            file, self._waiting, self.is_whole = self._waiting[:place], b"", True
            return file
        kept = len(self._end) - 1  # the boundary may have begun at the end of what is there
        if len(self._waiting) <= kept:
            return b""
        file, self._waiting = self._waiting[:-kept], self._waiting[-kept:]
        return file

    def _read_head(self) -> bool:
        """Read the head of a part; False: it isn't all there."""
        head, blank, rest = self._waiting.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD_BYTES:
            raise ConfigError("the head of a field of this form has no end")
        if head.startswith(self._end + b"--"):
            raise ConfigError("choose a file: this form ends without one")
        if not blank:
            return False
        first, _, lines = head[2:].partition(b"\r\n")
        text = lines.decode("utf-8", "replace")
        name, filename = _NAME.search(text), _FILENAME.search(text)
        if first != self._end[2:] or name is None:
            raise ConfigError("this form can't be read: one of its fields has no name")
        if len(self.fields) >= MAX_FIELDS:
            raise ConfigError(f"this form has more than {MAX_FIELDS} fields before its file")
        self._field, self._waiting = name[1], rest
        if filename is not None:
            self.filename = filename[1]
        else:
            # an empty field's end begins where its head ends
            self._waiting, self._is_inside = b"\r\n" + rest if rest.startswith(self._end[2:]) else rest, True
        return True

    def _read_field(self) -> bool:
        """Read the value of a field; False: it isn't all there."""
        place = self._waiting.find(self._end)
        if max(place, 0) > MAX_FIELD_BYTES or (place < 0 and len(self._waiting) > MAX_FIELD_BYTES + len(self._end)):
            raise ConfigError(f"field {self._field}: longer than {MAX_FIELD_BYTES} bytes")
        if place < 0:
            return False
        assert self._field is not None
        self.fields[self._field] = self._waiting[:place].decode("utf-8", "replace")
        self._waiting, self._is_inside = self._waiting[place:], False
        return True
