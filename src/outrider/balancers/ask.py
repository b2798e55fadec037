"""One GET with a time limit on the whole of it, for what a balancer or an app tells about itself.

Proxies and credentials in the environment are left alone: these addresses are on our own machines, and a proxy in
between would answer for itself.
"""

import time
from dataclasses import dataclass

import requests
from urllib3.exceptions import HTTPError

MAX_BYTES = 4 * 1024 * 1024
"""More than any of these answers is long; a service of 10 000 servers is about 1 MB in Traefik's API."""
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: the HTTP status and the whole body."""

    status: int
    body: bytes


def ask(url: str, *, timeout_s: float) -> Answer | None:
    """GET ``url`` once, without following redirects.

    Returns:
        The answer, or None when there was none: unreachable, broken off, too long, or not done after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    try:
        with requests.Session() as session:
            session.trust_env = False
            with session.get(
                url,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
                headers={"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"},
            ) as response:
                body = bytearray()
                # requests limits only the time between two reads, so a server that drips would hold us forever
                while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
                    body += piece
                    if len(body) > MAX_BYTES or time.monotonic() > deadline:
                        return None
                expected = response.headers.get("Content-Length", "")
                if expected.isdigit() and int(expected) != len(body):
                    return None
                return Answer(status=response.status_code, body=bytes(body))
    # reading response.raw passes by requests' own wrapping of urllib3's errors
    except (requests.RequestException, OSError, ValueError, HTTPError):
        return None
