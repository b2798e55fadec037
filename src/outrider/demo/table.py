"""The demo's live table: one line per instance on a terminal, one line per change elsewhere."""

import sys
from collections.abc import Sequence
from typing import TextIO

from outrider.demo.load import LoadFigures
from outrider.model.documents import Presence


class LiveTable:
    """Shows presences as they are now."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._lines = 0
        self._last: dict[str, tuple[str, str, str]] = {}

    def say(self, text: str) -> None:
        """A line of its own, above the table from here on."""
        self._erase()
        print(text, file=self._stream, flush=True)

    def show(self, presences: Sequence[Presence], figures: LoadFigures | None) -> None:
        """Draw the table again, or tell what has changed."""
        if not self._terminal:
            for one in presences:
                now = (one.state, one.version, one.why)
                if self._last.get(one.instance) != now:
                    self._last[one.instance] = now
                    print(f"    {self._row(one)}".rstrip(), file=self._stream, flush=True)
            return
        lines = [f"    {'INSTANCE':<10} {'VERSION':<8} {'STATE':<22} WAITS FOR", *(self._row(one) for one in presences)]
        if figures is not None:
            lines.append(f"    load: {figures.requests} requests, {figures.failed} failed")
        self._erase()
        print("\n".join(line[:118] for line in lines), file=self._stream, flush=True)
        self._lines = len(lines)

    def _row(self, one: Presence) -> str:
        row = f"{one.instance:<10} {one.version:<8} {one.state:<22} {one.why}"
        return f"    {row}" if self._terminal else row

    def _erase(self) -> None:
        if self._lines:
            print(f"\x1b[{self._lines}F\x1b[J", end="", file=self._stream)
            self._lines = 0
