"""Browsers whose users exist before their service is started: it knows them from its first request on."""

from pathlib import Path
from typing import Any

from outrider.service.store.store import Store
from tests.service.web.test_sessions import token_of
from tests.support.browsers import Browser
from tests.support.in_process import application_over
from tests.support.wall_clock import WallClock


def logged_in(store: Store, folder: Path, clock: WallClock, role: str, *, name: str = "eve", **more: Any) -> Browser:
    """A browser of a new user."""
    token = token_of(store, name, role, **more)
    browser = Browser(application_over(store.context.cluster, folder, now=clock))  # type: ignore[arg-type]
    assert 303 == browser.log_in(token).status
    return browser
