"""Simulated instances: they ask, pretend to update and report, byte for byte as updatectl's ``instance fake`` does.

One update is: update check with event 3:2; 13:1, 14:1, 3:1, a second apart; pings while a reboot is held back; 3:2 with
the new version. A failure is 3:0 with error code 2000, then the event that was meant, and the update is given up.

Source: updateservicectl instance.go; tests/data/captures/instance-fake-update/.
"""

import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from outrider import __version__
from outrider.core.errors import OmahaError, OutriderError
from outrider.core.omaha import MAX_RESPONSE_BYTES, AppAnswer, CheckError, FailureCode, NoUpdate, Offer, parse_response
from outrider.http import read_body
from outrider.omaha_client.exchange import exchange

TIMEOUT_S = 10.0
"""For one request as a whole."""
FAKE_ERROR = FailureCode.HTTP_RESPONSE
"""``errorcode`` of a simulated failure, as updatectl sends it."""

_STEPS = ("13:1", "14:1", "3:1")
# Go's encoding/xml escapes these five, and quotes with numbers.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSettings:
    """What to simulate.

    Attributes:
        url: The Omaha endpoint, in full.
        min_sleep_s, max_sleep_s: Between two checks of one client.
        error_percent: Chance that a step of an update fails, 0 to 100.
        pings: So many pings of each client before it finishes its first update: a reboot that is held back.
        on_demand: Say that a person asked.
        updates: Number of updates after which each client ends; None continues until ``stop``.
        step_s: Between two reports.
        verify: As ``requests`` has it.
    """

    url: str
    app_id: str
    group: str
    version: str = "0.0.0"
    clients: int = 20
    min_sleep_s: float = 1.0
    max_sleep_s: float = 10.0
    error_percent: float = 1.0
    oem: str = "fakeclient"
    pings: int = 0
    on_demand: bool = False
    updates: int | None = None
    step_s: float = 1.0
    verify: bool | str = True


@dataclass(slots=True)
class Tally:
    """What a fleet did."""

    checks: int = 0
    updates: int = 0
    failures: int = 0


class FakeFleet:
    """``settings.clients`` simulated instances, each on a thread of its own."""

    def __init__(
        self, settings: FakeSettings, tell: Callable[[str, str], None], show: Callable[[str, bytes], None] | None = None
    ) -> None:
        """Prepare them; ``tell`` gets a client's id and what happened to it, ``show`` every body sent and received.

        Both are called from the clients' threads, one call at a time.
        """
        self.settings = settings
        self.tally = Tally()
        self._tell, self._show = tell, show
        self._talking = threading.Lock()
        self._stopping = threading.Event()
        # Known words first, so that anybody recognises such an instance; one run has one prefix.
        prefix = "deadbeef" + uuid.uuid4().hex[:6]
        self.ids = tuple(prefix + uuid.uuid4().hex[14:] for _ in range(settings.clients))

    def run(self) -> Tally:
        """Simulate until every client has made its updates, or until ``stop``."""
        threads = [threading.Thread(target=_Client(self, each).live, name=each, daemon=True) for each in self.ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.tally

    def stop(self) -> None:
        """Let every client end after the request that it is in."""
        self._stopping.set()

    def pause(self, seconds: float) -> bool:
        """Sleep; tells whether the fleet goes on."""
        return not self._stopping.wait(seconds)

    def tell(self, client: str, text: str) -> None:
        with self._talking:
            self._tell(client, text)

    def show(self, client: str, body: bytes) -> None:
        if self._show is not None:
            with self._talking:
                self._show(client, body)

    def count(self, *, checks: int = 0, updates: int = 0, failures: int = 0) -> None:
        with self._talking:
            self.tally.checks += checks
            self.tally.updates += updates
            self.tally.failures += failures


class _Stopped(Exception):
    """The fleet ends."""


class _Client:
    def __init__(self, fleet: FakeFleet, name: str) -> None:
        self._fleet, self._settings, self._name = fleet, fleet.settings, name
        self._version, self._boot = fleet.settings.version, str(uuid.uuid4())
        self._pings, self._updates = fleet.settings.pings, 0

    def live(self) -> None:
        settings = self._settings
        try:
            while settings.updates is None or self._updates < settings.updates:
                self._sleep(random.uniform(settings.min_sleep_s, settings.max_sleep_s))  # noqa: S311
                try:
                    self._check()
                except OutriderError as error:
                    self._fleet.tell(self._name, str(error))
        except _Stopped:
            return

    def _check(self) -> None:
        answer = self._ask("3:2", update_check=True)
        self._fleet.count(checks=1)
        match answer.update_check:
            case Offer(version=version):
                self._update(version)
            case NoUpdate(reason=reason):
                status = "" if answer.status == "ok" else f" ({answer.status})"
                self._fleet.tell(self._name, f"noupdate{status}{f': {reason}' if reason else ''}")
            case CheckError(status=status):
                self._fleet.tell(self._name, status)
            case None:
                raise OmahaError("no <updatecheck> in the answer, although one was asked for")

    def _update(self, version: str) -> None:
        for number, step in enumerate(_STEPS):
            if number:
                self._sleep(self._settings.step_s)
            if random.random() * 100 < self._settings.error_percent:  # noqa: S311
                self._fleet.count(failures=1)
                self._ask("3:0")
                self._fleet.tell(self._name, f"failed to update to {version} in {step} (--errorrate)")
                self._sleep(self._settings.min_sleep_s)
                self._ask(step)
                return
            self._ask(step)
        while self._pings > 0:
            self._ask(ping=True)
            self._pings -= 1
            self._sleep(self._settings.step_s)
        before, self._version = self._version, version
        self._ask("3:2")
        self._fleet.tell(self._name, f"updated from {before} to {version}")
        self._boot = str(uuid.uuid4())
        self._updates += 1
        self._fleet.count(updates=1)

    def _sleep(self, seconds: float) -> None:
        if not self._fleet.pause(seconds):
            raise _Stopped

    def _ask(self, event: str = "", *, update_check: bool = False, ping: bool = False) -> AppAnswer:
        settings = self._settings
        body = render(
            settings,
            version=self._version,
            boot=self._boot,
            name=self._name,
            event=event,
            check=update_check,
            ping=ping,
        )
        self._fleet.show(self._name, body)
        answer, content = ask(settings, body)
        self._fleet.show(self._name, content)
        return answer


def ask(settings: FakeSettings, body: bytes) -> tuple[AppAnswer, bytes]:
    """Send one request; returns the answer for the settings' app, and the body as it came.

    Raises:
        OmahaError: the answer isn't one.
        DriverError: there is none.
    """
    agent = f"outrider/{__version__}"
    with exchange(
        settings.url, body, timeout_s=TIMEOUT_S, user_agent=agent, content_type="text/xml", verify=settings.verify
    ) as response:
        status, content = response.status_code, read_body(response, MAX_RESPONSE_BYTES)
    if status != 200:
        raise OmahaError(f"{settings.url}: HTTP {status}")
    answer = parse_response(content).answer_to(settings.app_id)
    if answer is None:
        raise OmahaError(f"{settings.url}: no answer for app {settings.app_id!r} in the response")
    return answer, content


def render(
    settings: FakeSettings,
    *,
    version: str,
    boot: str,
    name: str,
    event: str = "",
    check: bool = False,
    ping: bool = False,
) -> bytes:
    """One request as Go writes it for updatectl: no declaration, one blank per level, no newline at the end."""
    source = "ondemandupdate" if settings.on_demand else "scheduler"
    app = _tag(
        "app",
        appid=settings.app_id,
        version=version,
        track=settings.group,
        bootid=boot,
        machineid=name,
        oem=settings.oem,
    )
    children = []
    if ping:
        children.append(_tag("ping", r="1", status="1") + "</ping>")
    if check:
        children.append("<updatecheck></updatecheck>")
    if event:
        kind, _, result = event.partition(":")
        code = str(int(FAKE_ERROR)) if result == "0" else ""
        children.append(_tag("event", eventtype=kind, eventresult=result, errorcode=code) + "</event>")
    lines = [
        _tag("request", protocol="3.0", installsource=source),
        " " + _tag("os", platform="CoreOS", version="lsb") + "</os>",
        " " + app,
        *(f"  {child}" for child in children),
        " </app>",
        "</request>",
    ]
    return "\n".join(lines).encode()


def _tag(name: str, **attributes: str) -> str:
    written = "".join(f' {key}="{value.translate(_ESCAPES)}"' for key, value in attributes.items() if value)
    return f"<{name}{written}>"
