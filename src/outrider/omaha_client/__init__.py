"""The update service, as the sidekick asks it."""

from outrider.omaha_client.client import MAX_RETRY_AFTER_S, Upstream

__all__ = ["MAX_RETRY_AFTER_S", "Upstream"]
