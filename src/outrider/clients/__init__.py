"""Omaha clients beside the sidekick: the watcher that runs a program, simulated instances, and load."""

from outrider.clients.bench import Bench, Measured
from outrider.clients.fake import FakeFleet, FakeSettings
from outrider.clients.watch import Watcher, WatchSettings

__all__ = ["Bench", "FakeFleet", "FakeSettings", "Measured", "WatchSettings", "Watcher"]
