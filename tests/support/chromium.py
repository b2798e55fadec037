"""Playwright, for tests in a real browser: it is installed with the programs of the outer rings, 165 MB.

Without it such a test can be collected; it is skipped with its reason.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["Browser", "Page", "expect", "sync_playwright"]

if TYPE_CHECKING:
    Browser: TypeAlias = Any
    Page: TypeAlias = Any
    expect: Callable[[Any], Any]
    sync_playwright: Callable[[], Any] | None
else:
    try:
        from playwright.sync_api import Browser, Page, expect, sync_playwright
    except ModuleNotFoundError:
        Browser = Page = Any
        expect = sync_playwright = None
