"""Streams of what has changed on a page, as server-sent events; one turn of it also as JSON.

A message has the fragments with other HTML than its page shows, and the order of each changed list. What a page has is
known by the name of the last message that it got, or of the page itself, as long as this process remembers it; else it
gets everything. So a page that comes back, also to another process, misses nothing.

All who look at the same page share its fragments, which are made at most every ``PACE_S``.
"""

import asyncio
import json
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from outrider.core.errors import OutriderError
from outrider.service.web.reading import Reading
from outrider.service.web.rendering import Fragments

PACE_S = 0.4
"""Between two messages of a page: a change is on the screen within a second."""
BEAT_S = 2.0
"""A message at least so often; a page that hears nothing for three of them says that it is stale."""
AGAIN_S = 5.0
"""Fragments are made anew so often while nothing changes: they have times in them."""
REMEMBERED = 300
OF_ONE_BROWSER = 4
"""A browser has six connections to a host over HTTP/1.1; some are left for what a person does."""


def new_name() -> str:
    """A name for what a page has."""
    return secrets.token_urlsafe(9)


@dataclass(slots=True)
class Have:
    """What a page has: the hash of each fragment, and its lists."""

    html: dict[str, int] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, fragments: Fragments) -> "Have":
        return cls(html={name: hash(html) for name, html in fragments.html.items()}, lists=fragments.lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The fragments of a page at one revision. ``pace_s``: until it is made anew at the earliest."""

    fragments: Fragments
    have: Have
    revision: int
    made_at: float
    now: datetime
    pace_s: float


Make = Callable[[], Awaitable[tuple[Fragments, int, datetime]]]


class Live:
    """The streams of one process."""

    def __init__(self, reading: Reading, most: int) -> None:
        """``most``: streams at the same time."""
        self._reading, self._most = reading, most
        self._have: OrderedDict[str, Have] = OrderedDict()
        self._turns: OrderedDict[tuple[object, ...], Turn] = OrderedDict()
        self._making: dict[tuple[object, ...], asyncio.Lock] = {}
        self._open: Counter[str] = Counter()
        self._ending = asyncio.Event()

    def is_full(self, browser: str) -> bool:
        """There are as many streams as may be, or as this browser may have; a page asks now and then instead."""
        return self._open[browser] >= OF_ONE_BROWSER or self._open.total() >= self._most

    def end(self) -> None:
        """End all streams; the service is going to stop."""
        self._ending.set()

    def remember(self, have: Have, name: str = "") -> str:
        """Remember what a page has, under its name or a new one."""
        name = name or new_name()
        self._have[name] = have
        while len(self._have) > REMEMBERED:
            self._have.popitem(last=False)
        return name

    async def turn(self, key: tuple[object, ...], make: Make, *, at_least: int = 0) -> Turn:
        """The fragments of the page ``key``, made at most a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._making.setdefault(key, asyncio.Lock()):
            kept = self._turns.get(key)
            if kept is not None and kept.revision >= at_least and kept.revision == self._reading.revision != 0:
                if loop.time() - kept.made_at < AGAIN_S:
                    return kept
            elif kept is not None and kept.revision >= at_least and loop.time() - kept.made_at < kept.pace_s:
                return kept
            began = loop.time()
            try:
                fragments, revision, now = await make()
            except OutriderError:
                if kept is None:
                    self._making.pop(key, None)
                raise
            made_at = loop.time()
            made = Turn(
                fragments=fragments,
                have=Have.of(fragments),
                revision=revision,
                made_at=made_at,
                now=now,
                pace_s=max(PACE_S, 2 * (made_at - began)),  # a large group takes a third of a processor, not all of it
            )
            self._turns[key] = made
            self._turns.move_to_end(key)
            while len(self._turns) > REMEMBERED:
                oldest, _ = self._turns.popitem(last=False)
                self._making.pop(oldest, None)
            return made

    def message(self, turn: Turn, had: str) -> tuple[str, dict[str, object]]:
        """What a page needs that has ``had``, and the name of what it has then."""
        before = self._have.get(had, Have())
        html = turn.fragments.html
        changed = {name: html[name] for name, mark in turn.have.html.items() if before.html.get(name) != mark}
        lists = {name: ids for name, ids in turn.have.lists.items() if before.lists.get(name) != ids}
        name = had if had in self._have and not changed and not lists else self.remember(turn.have)
        if name != had:
            self._have.pop(had, None)
        return name, {"have": name, "html": changed, "lists": lists, **self.beat(turn.now)}

    def beat(self, now: datetime) -> dict[str, object]:
        """What every message says."""
        return {"now": now.isoformat(timespec="milliseconds"), "stale_s": round(self._reading.stale_s(), 1)}

    async def stream(
        self, key: tuple[object, ...], make: Make, had: str, browser: str, still: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[str]:
        """Messages without end. ``browser``: whose stream it is. ``still``: the visitor may still see the page."""
        loop = asyncio.get_running_loop()
        self._open[browser] += 1
        try:
            while not self._ending.is_set():
                began = loop.time()
                try:
                    if not await still():
                        yield _event("left", {})
                        return
                    turn = await self.turn(key, make)
                except OutriderError as error:
                    yield _event("trouble", {"why": str(error)})
                    await self._pause(BEAT_S)
                    continue
                had, told = self.message(turn, had)
                yield _event("live", told)
                await self._pause(max(0.0, turn.pace_s - (loop.time() - began)))
                if self._reading.revision == turn.revision:
                    await self._changed(turn.revision)
        finally:
            self._open[browser] -= 1
            if not self._open[browser]:
                del self._open[browser]

    async def _changed(self, revision: int) -> None:
        waits = asyncio.ensure_future(self._reading.changed(revision, BEAT_S))
        ends = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait((waits, ends), timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()
            ends.cancel()

    async def _pause(self, within_s: float) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), within_s)
        except TimeoutError:
            return


def _event(name: str, facts: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(facts, separators=(',', ':'))}\n\n"
