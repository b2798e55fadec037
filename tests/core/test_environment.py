"""What an environment may say, and how two of them differ."""

import pytest

from outrider.core.environment import ARGUMENTS, Difference, Environment, checked, differences
from outrider.core.errors import ConfigError


def test_a_secret_is_masked_and_a_reference_is_shown() -> None:
    environment = Environment(
        variables={"LOG": "info"}, secrets={"PASSWORD": "geheim"}, references={"KEY": "file:/etc/key"}
    )

    shown = environment.shown()

    assert {"KEY": ("reference", "file:/etc/key"), "LOG": ("value", "info"), "PASSWORD": ("secret", "***")} == shown


def test_the_digest_tells_two_environments_apart_and_is_of_no_use_without_the_salt() -> None:
    one, other = Environment(secrets={"PASSWORD": "a"}), Environment(secrets={"PASSWORD": "b"})

    assert one.digest("salt") == Environment(secrets={"PASSWORD": "a"}).digest("salt")
    assert one.digest("salt") != other.digest("salt")
    assert one.digest("salt") != one.digest("pepper")
    assert one.digest("salt") != Environment(variables={"PASSWORD": "a"}).digest("salt")


def test_differences_name_what_was_added_removed_and_changed() -> None:
    before = Environment(variables={"A": "1", "B": "1"}, secrets={"S": "old"}, arguments=("-v",))
    after = Environment(variables={"B": "2", "C": "3"}, secrets={"S": "new"})

    assert (
        Difference(name="A", before="1", after=None),
        Difference(name="B", before="1", after="2"),
        Difference(name="C", before=None, after="3"),
        Difference(name="S", before="***", after="***"),
        Difference(name=ARGUMENTS, before='["-v"]', after=None),
    ) == differences(before, after)
    assert () == differences(before, before)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Environment(variables={"1A": "x"}), "letters, digits and _"),
        (Environment(variables={"A-B": "x"}), "letters, digits and _"),
        (Environment(variables={"PORT": "80"}), "outrider sets it itself"),
        (Environment(secrets={"OUTRIDER_VERSION": "x"}), "outrider sets it itself"),
        (Environment(variables={"A": "x"}, secrets={"A": "y"}), "given twice"),
        (Environment(variables={"A": "x\x00"}), "NUL"),
        (Environment(arguments=("x\x00",)), "NUL"),
        (Environment(secrets={"A": "x\ud800"}), "half a character"),
        (Environment(references={"A": "file:relative"}), "write file:/PATH"),
        (Environment(references={"A": "vault:x"}), "write file:/PATH"),
        (Environment(references={"A": "credential:../x"}), "write file:/PATH"),
        (Environment(variables={"A": "x" * 70000}), "put large values into files"),
        (Environment(variables={f"A{number}": "" for number in range(300)}), "at most 256 variables"),
    ],
)
def test_what_no_app_can_be_started_with_is_refused(environment: Environment, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checked(environment)


def test_every_kind_of_reference_is_taken() -> None:
    references = {"A": "file:/run/x y", "B": "credential:db", "C": "docker-secret:db_password"}

    assert references == checked(Environment(references=references)).references
