"""Hawk: who knows the key of a user has signed method, address, time and nonce of a request; not its body.

Own code, for mohawk, the library for it, had its last release in 2019, and what has to be checked is one HMAC. Two
habits of coreos/hawk-go, which updateservicectl uses: the path is signed as it is without percent signs, and a server
learns host and port from ``Host`` alone.

Source: the description of Hawk 1.1, https://github.com/mozilla/hawk/blob/main/API.md.
"""

import base64
import hashlib
import hmac
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from outrider.core.errors import Unauthorized

SCHEME = "hawk"
WINDOW_S = 60
"""How far the clocks of client and service may be apart, either way."""
MAX_HEADER = 2048
_ATTRIBUTE = re.compile(r'\s*(id|ts|nonce|mac|hash|ext|app|dlg)="([ -!#-\[\]-~]*)"\s*')
_NONCE = re.compile(r"[ -~]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What the header of a request says; nothing of it is proved.

    Attributes:
        user: ``id`` in the header.
        at: Seconds since 1970.
    """

    user: str
    at: int
    nonce: str
    mac: str
    hash: str = ""
    ext: str = ""

    @property
    def nonce_digest(self) -> str:
        """Names the nonce where only some characters may stand: 64 hex digits."""
        return hashlib.sha256(f"{self.at} {self.nonce}".encode()).hexdigest()


def parse_header(header: str) -> Signed:
    """Read ``Authorization: Hawk id="...", ts="...", nonce="...", mac="..."``.

    Raises:
        Unauthorized: it isn't one.
    """
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != SCHEME:
        raise Unauthorized(
            "no Hawk signature: give updateservicectl --user and --key; `outrider admin-user create NAME --hawk` makes"
            " the key"
        )
    found: dict[str, str] = {}
    for part in rest.split(",") if len(header) <= MAX_HEADER else ():
        attribute = _ATTRIBUTE.fullmatch(part)
        if attribute is None or attribute[1] in found:
            raise Unauthorized("invalid Hawk header: it has an attribute that can't be read, or one twice")
        found[attribute[1]] = attribute[2]
    moment = found.get("ts", "")
    if not found.keys() >= {"id", "ts", "nonce", "mac"} or not re.fullmatch(r"[0-9]{1,12}", moment):
        raise Unauthorized("invalid Hawk header: it needs id, ts, nonce and mac")
    if found.keys() & {"app", "dlg"} or not _NONCE.fullmatch(found["nonce"]):
        raise Unauthorized("invalid Hawk header: a nonce has 1 to 200 characters, and app and dlg are not taken")
    return Signed(
        user=found["id"], at=int(moment), nonce=found["nonce"], mac=found["mac"],
        hash=found.get("hash", ""), ext=found.get("ext", ""),
    )  # fmt: skip


def mac_of(key: str, signed: Signed, method: str, resource: str, host: str, port: int) -> str:
    """The signature that the header must have, in base64."""
    text = (
        f"hawk.1.header\n{signed.at}\n{signed.nonce}\n{method.upper()}\n{resource}\n{host}\n{port}\n"
        f"{signed.hash}\n{signed.ext}\n"
    )
    return base64.b64encode(hmac.digest(key.encode(), text.encode("utf-8", "surrogateescape"), "sha256")).decode()


def is_signed(key: str, signed: Signed, *, method: str, raw_path: str, query: str, host: str, https: bool) -> bool:
    """Whether somebody who knows ``key`` has signed the request.

    Args:
        raw_path: As it was sent, with percent signs.
        query: What is behind the question mark, as it was sent.
        host: The header ``Host``.
        https: The client speaks https, as far as the service knows.
    """
    tail = f"?{query}" if query else ""
    resources = dict.fromkeys((unquote(raw_path) + tail, raw_path + tail))
    matches = [
        hmac.compare_digest(mac_of(key, signed, method, resource, name, port), signed.mac)
        for resource, (name, port) in itertools.product(resources, _places(host, https=https))
    ]
    return any(matches)


def is_timely(signed: Signed, now_s: float) -> bool:
    """Whether it was signed within a minute of ``now_s``."""
    return abs(now_s - signed.at) <= WINDOW_S


def time_header(key: str, now_s: float) -> str:
    """``WWW-Authenticate`` for a client whose clock is wrong: the service's time, signed."""
    seconds = int(now_s)
    mac = base64.b64encode(hmac.digest(key.encode(), f"hawk.1.ts\n{seconds}\n".encode(), "sha256")).decode()
    return f'Hawk ts="{seconds}", tsm="{mac}", error="Stale timestamp"'


def _places(host: str, *, https: bool) -> Iterator[tuple[str, int]]:
    """Host and port as a client may have signed them: behind a proxy that ends TLS, nobody knows which port it used."""
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdigit() and not name.endswith(":") and "]" not in port:
        ports = [int(port)]
    else:
        name, ports = host, ([443, 80] if https else [80, 443])
    names = dict.fromkeys((name, name.lower(), name.strip("[]")))
    yield from itertools.product(names, ports)
