"""Which release: its text for people, for keys and for the wire."""

from dataclasses import replace

import pytest

from outrider.core.errors import ConfigError
from outrider.core.release import ReleaseId, release_of
from outrider.model.keys import Keys

PLAIN = ReleaseId(version="2.4.0", sha256="a" * 64)
SEVENTH = ReleaseId(version="2.4.0", sha256="a" * 64, environment=7, environment_digest="b" * 64)
RESTARTED = replace(SEVENTH, generation=3)


def test_a_release_without_environment_is_called_and_stored_as_its_version() -> None:
    assert "2.4.0" == PLAIN.label == PLAIN.key("production")


def test_environment_and_generation_are_named_to_people() -> None:
    assert "2.4.0 with environment 7" == SEVENTH.label
    assert "2.4.0 with environment 7, generation 3" == RESTARTED.label
    assert "2.4.0, generation 3" == replace(PLAIN, generation=3).label


def test_every_release_of_an_app_has_a_key_of_its_own_that_etcd_takes() -> None:
    releases = (PLAIN, SEVENTH, RESTARTED, replace(PLAIN, generation=3), replace(SEVENTH, environment_digest="c" * 64))

    keys = {Keys().block("app", release.key(group)) for release in releases for group in ("production", "canary")}

    assert 2 * 4 + 1 == len(keys), "a plain release is one for all groups, any other belongs to its group"


def test_a_key_stays_short_enough_for_etcd_and_unique_whatever_the_group_is_called() -> None:
    one, other = SEVENTH.key("g" * 127 + "1"), SEVENTH.key("g" * 127 + "2")

    assert one != other
    assert Keys().block("app", one).endswith(one)


@pytest.mark.parametrize(
    "release", [PLAIN, SEVENTH, RESTARTED, ReleaseId(version="1.0.0-rc.1+build.5"), ReleaseId(version="")]
)
def test_a_release_comes_back_from_the_wire_as_it_was_sent(release: ReleaseId) -> None:
    assert release == release_of(release.as_word())


@pytest.mark.parametrize(
    "word",
    ["", "2.4.0", "2.4.0;environment=7", "2.4.0;environment=-1;environment-digest=;generation=0;digest=",
     "2.4.0;environment=7;environment-digest=xyz;generation=0;digest=",
     "2.4.0;environment=99999999999;environment-digest=;generation=0;digest=",
     PLAIN.as_word() + ";more=1", PLAIN.as_word() + "\n"],
)  # fmt: skip
def test_anything_else_on_the_wire_is_no_release(word: str) -> None:
    with pytest.raises(ConfigError, match=r"release .*environment=NUMBER"):
        release_of(word)
