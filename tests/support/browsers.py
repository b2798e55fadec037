"""A browser without a screen: it keeps cookies, sends what browsers send, and fills in forms."""

import asyncio
import re
from dataclasses import dataclass, field
from html import unescape
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from starlette.types import ASGIApp

from tests.support.in_process import Answer, ask_in_loop

_INPUT = re.compile(r"<input [^>]*>")
_ATTRIBUTE = re.compile(r'(name|value)="([^"]*)"')


@dataclass(slots=True)
class Browser:
    """One browser at one service.

    Attributes:
        cookies: Those that it has, by name.
        last: What came last.
    """

    application: ASGIApp
    scheme: str = "http"
    host: str = "localhost"
    cookies: dict[str, str] = field(default_factory=dict)
    last: Answer | None = None

    def get(self, path: str, **headers: str) -> Answer:
        """Look at a page."""
        return self._ask("GET", path, b"", headers)

    def post(self, path: str, form: dict[str, str], **headers: str) -> Answer:
        """Send a form as a page of the service does."""
        own = {"origin": f"{self.scheme}://{self.host}", "content_type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, urlencode(form).encode(), own | headers)

    def fields(self) -> dict[str, str]:
        """The fields of the forms of the page that came last, filled in as they came."""
        found = (dict(_ATTRIBUTE.findall(tag)) for tag in _INPUT.findall(self.text))
        return {unescape(one["name"]): unescape(one.get("value", "")) for one in found}

    @property
    def text(self) -> str:
        """What came last."""
        assert self.last is not None
        return self.last.body.decode()

    def log_in(self, token: str) -> Answer:
        """Log in with a token."""
        return self.post("/login", {"token": token, "to": "/"})

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        sent = {"host": self.host} | headers
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        asked = ask_in_loop(self.application, method, path, body, scheme=self.scheme, at_socket=False, **sent)
        self.last = asyncio.run(asked)
        for line in self.last.cookies:
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return self.last
