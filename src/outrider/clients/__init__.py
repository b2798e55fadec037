"""Omaha clients beside the sidekick: the watcher that runs a program, and simulated instances."""

from outrider.clients.fake import FakeFleet, FakeSettings
from outrider.clients.watch import Watcher, WatchSettings

__all__ = ["FakeFleet", "FakeSettings", "WatchSettings", "Watcher"]
