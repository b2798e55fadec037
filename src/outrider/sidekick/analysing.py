"""Starts the analysis of a candidate with what the settings of this instance say."""

from collections.abc import Callable
from urllib.parse import urlsplit

from outrider.analysis.analyst import Analysis, Verdict
from outrider.analysis.comparison import Comparison, Subject
from outrider.analysis.sources import ASKED_AT_MOST, asks_each, source_of
from outrider.config.sections import Settings
from outrider.core.omaha import app_key
from outrider.core.sidekick.effects import StartAnalysis
from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.sidekick.workers.worker import now


class InstanceAnalyst:
    """Analyses the candidates of one instance."""

    def __init__(self, settings: Settings, cluster: Cluster, keys: Keys, *, clock: Callable[[], float]) -> None:
        """``clock``: seconds that never go back, and stand still while the machine does."""
        self._settings, self._cluster, self._keys, self._clock = settings, cluster, keys, clock

    def __call__(
        self, effect: StartAnalysis, *, deliver: Callable[[Verdict], None], tell: Callable[[str], None]
    ) -> Analysis:
        """Begin; see ``Analysis``."""
        instance, settings = self._settings.instance, self._settings.analysis
        app, parts = app_key(instance.app), urlsplit(effect.url)
        facts = {
            "url": effect.url,
            "host": parts.hostname or "",
            "port": str(parts.port or 80),
            "instance": instance.id,
            "version": effect.version,
            "app": app,
            "group": instance.group,
        }
        source = source_of(settings, self._settings.balancer.service)
        comparison = None
        if source is not None:
            subject = Subject(
                app=app, group=instance.group, instance=instance.id, url=effect.url, release=effect.release
            )
            comparison = Comparison(
                self._cluster,
                self._keys,
                subject,
                source,
                settings.plan,
                at_most=ASKED_AT_MOST if asks_each(settings) else None,
                clock=now,
            )
        return Analysis(settings, facts, comparison, deliver=deliver, tell=tell, clock=self._clock)
