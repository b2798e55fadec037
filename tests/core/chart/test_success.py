"""What a chart must say of its success path."""

import pytest

from outrider.core.chart.success import success_path
from outrider.core.errors import ChartError
from outrider.statechart import load_sidekick_chart
from tests.support.charts import load

STEP = '<state id="{0}" o:why="x" o:resting="true">{1}</state>'
GO = '<transition event="{0}" target="{1}" o:success="true"/>'


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            STEP.format("a", '<transition event="go" target="b"/><transition event="tick" o:success="true"/>')
            + STEP.format("b", '<transition event="go" target="a"/>'),
            'o:success="true" needs a target that is a state',
        ),
        (
            STEP.format("a", GO.format("go", "b")) + STEP.format("b", GO.format("go", "a")),
            "the success path goes round in a circle: it needs a state where it begins",
        ),
        (
            STEP.format("a", GO.format("go", "b"))
            + STEP.format("b", GO.format("go", "c"))
            + STEP.format("c", GO.format("go", "b")),
            "the success path goes round in a circle through 'b'",
        ),
        (
            STEP.format("a", GO.format("go", "b"))
            + STEP.format("b", '<transition event="go" target="c"/>')
            + STEP.format("c", GO.format("go", "a").replace('target="a"', 'target="d"'))
            + STEP.format("d", '<transition event="go" target="a"/>'),
            "no step of the success path leads to 'c'; it begins in 'a'",
        ),
        (
            STEP.format(
                "a",
                '<transition event="go" cond="is_new" target="b" o:success="true"/>' + GO.format("go", "c"),
            )
            + STEP.format("b", GO.format("go", "d"))
            + STEP.format("c", '<transition event="go" target="d"/>')
            + STEP.format("d", '<transition event="go" target="a"/>'),
            "the success path breaks off at 'c'; it also ends at 'd'",
        ),
        (
            STEP.format("a", GO.format("go", "b") + GO.format("tick", "c"))
            + STEP.format("b", '<transition event="go" target="a"/>')
            + STEP.format("c", '<transition event="go" target="a"/>'),
            "this step of the success path is never reached",
        ),
        (
            STEP.format("a", GO.format("go", "b").replace("true", "yes"))
            + STEP.format("b", '<transition event="go" target="a"/>'),
            "o:success='yes' of <transition>: write true or false",
        ),
    ],
)
def test_a_broken_success_path_is_refused(body: str, problem: str) -> None:
    with pytest.raises(ChartError) as refused:
        load(body)

    assert problem in str(refused.value)


def test_a_path_that_guards_split_has_the_same_end_whatever_they_say() -> None:
    body = (
        STEP.format("a", '<transition event="go" cond="is_new" target="b" o:success="true"/>' + GO.format("go", "c"))
        + STEP.format("b", GO.format("go", "d"))
        + STEP.format("c", GO.format("go", "d"))
        + STEP.format("d", '<transition event="go" target="a"/>')
    )

    chart = load(body)

    assert 4 == sum(way.success for way in chart.transitions)
    with pytest.raises(ChartError, match="the success path splits at 'a'"):
        success_path(chart)
    with pytest.raises(ChartError, match=r"splits at 'swapping\.queueing', .* decide starts_first"):
        success_path(load_sidekick_chart())
