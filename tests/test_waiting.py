"""Waits of tests: what counts as an answer, and what ends them."""

import pytest
import requests

from outrider.core.errors import Refused, Unknown
from tests.support.waiting import eventually


class Script:
    """A fact that answers by script; the last answer stays."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked = 0

    def __call__(self) -> object:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "trouble",
    [
        requests.ConnectionError("reset"),
        requests.ReadTimeout("no answer"),
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
        Unknown("etcd: no answer"),
        AssertionError("not yet"),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
def test_a_question_without_an_answer_is_asked_again(trouble: Exception) -> None:
    fact = Script(trouble, 0, trouble, "there")

    assert "there" == eventually(fact)
    assert 4 == fact.asked


def test_an_answer_that_is_an_error_ends_the_wait_at_once() -> None:
    fact = Script(Refused("no"), "there")

    with pytest.raises(Refused):
        eventually(fact)
    assert 1 == fact.asked


def test_time_that_is_up_tells_the_last_value() -> None:
    with pytest.raises(AssertionError, match="the last value was 0"):
        eventually(Script(0), within_s=0.05)


def test_time_that_is_up_tells_the_last_trouble() -> None:
    with pytest.raises(requests.ConnectionError, match="reset"):
        eventually(Script(requests.ConnectionError("reset")), within_s=0.05)
