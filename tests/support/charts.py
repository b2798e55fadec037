"""Small charts for tests: written as text, loaded like the real one."""

from outrider.core.chart.load import Chart, Vocabulary, load_chart

EVENTS = frozenset({"go", "back", "tick", "tock", "late", "answer", "progress", "error.disk", "error.net", "lock.lost"})
VOCABULARY = Vocabulary(
    events=EVENTS,
    effects=frozenset({"do.this", "do.that", "leave.a", "leave.b", "enter.a", "enter.b", "cross"}),
    guards=frozenset({"is_new", "may_go", "is_old"}),
)
HEAD = (
    '<scxml xmlns="http://www.w3.org/2005/07/scxml" xmlns:o="urn:outrider:statechart:1"'
    ' version="1.0" name="small" initial="{initial}">'
)


def load(body: str, initial: str = "a", vocabulary: Vocabulary = VOCABULARY) -> Chart:
    """Load ``body`` inside of ``<scxml>``: its first line after the empty one is line 1, where the head is, too."""
    return load_chart(document(body, initial), "small.scxml", vocabulary)


def document(body: str, initial: str = "a") -> bytes:
    """A whole file around ``body``."""
    return f"{HEAD.format(initial=initial)}{body.strip()}\n</scxml>\n".encode()
