"""What a sidekick tells of its last update: the states that it was in, each with the revision that it had seen."""

from collections.abc import Sequence

from outrider.core.chart.model import Chart
from outrider.model.documents import encode
from outrider.model.history import LocalStep, LocalSteps, milliseconds, pack
from outrider.story.lines import Line
from outrider.story.telling import Moment, Story, tell

MAX_BYTES = 1_600
"""Of what is told of one update, as it is stored."""
MAX_TEXT = 100
EARLIER = 20
"""Records before an update that may say what began it."""


def last_story(lines: Sequence[Line], chart: Chart) -> Story | None:
    """The last update that has ended; None without one.

    Raises:
        StoryError: the journal can't be read.
    """
    updates = [_update(line) for line in lines]
    ended = [at for at in range(1, len(lines)) if updates[at - 1] and updates[at] != updates[at - 1]]
    if not ended:
        return None
    last = ended[-1]
    begin = last - 1
    while begin > 0 and updates[begin - 1] == updates[last - 1]:
        begin -= 1
    told = tell(lines[max(0, begin - EARLIER) : last + 1], chart)
    return told[-1] if told else None


def local_steps(story: Story, *, app: str, group: str, most_bytes: int = MAX_BYTES) -> LocalSteps:
    """``story`` as it is told: what has no room is left out, first what only explains, then from its middle."""
    moments = list(story.moments)
    while True:
        told = LocalSteps(
            app=app,
            group=group,
            instance=story.instance,
            update=story.update,
            version_before=story.version_before[:MAX_TEXT],
            version=story.version[:MAX_TEXT],
            outcome=story.outcome,
            because=story.because[:MAX_TEXT],
            left_out=len(story.moments) - len(moments),
            packed=pack([_step(one) for one in moments]),
        )
        if len(encode(told)) <= most_bytes or not moments:
            return told
        stays = [at for at, one in enumerate(moments) if not one.leaves]
        del moments[stays[0] if stays else len(moments) // 2]


def _step(moment: Moment) -> LocalStep:
    began = None
    if not moment.leaves:
        began = moment.at
    elif moment.entered is not None:
        began = moment.entered
    return LocalStep(
        number=moment.number,
        state=moment.state,
        began=milliseconds(began) if began is not None else 0,
        took_ms=round((moment.in_state_s or 0.0) * 1000) if moment.leaves else 0,
        seen=moment.seen,
        event=moment.event,
        text=moment.text[:MAX_TEXT],
        stays=not moment.leaves,
    )


def _update(line: Line) -> str:
    return str(line.record.memory.get("update", ""))
