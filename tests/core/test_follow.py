"""What a channel follows: which tags count, and which is the newest."""

import pytest

from outrider.core.errors import ConfigError
from outrider.core.follow import parse_follow

TAGS = (
    "latest", "1.9.0", "2", "2.0.0", "2.0.1", "2.1.0", "2.1.0-rc.1", "v2.1.1", "2.2.0-rc.2", "3.0.0", "3.1.0-beta",
    "release-4.0.0", "0.2.3", "0.2.9", "0.3.0", "2.0.0-arm64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "newest"),
    [
        ("^2", ("2.1.1", "v2.1.1")),
        ("^2.0.0", ("2.1.1", "v2.1.1")),
        ("~2.0", ("2.0.1", "2.0.1")),
        ("~2.0.1", ("2.0.1", "2.0.1")),
        ("2", ("2.1.1", "v2.1.1")),
        ("2.x", ("2.1.1", "v2.1.1")),
        ("2.0.*", ("2.0.1", "2.0.1")),
        ("*", ("3.0.0", "3.0.0")),
        ("=2.0.0", ("2.0.0", "2.0.0")),
        ("2.0.0", ("2.0.0", "2.0.0")),
        (">=2.0.0 <2.1.0", ("2.0.1", "2.0.1")),
        (">2", ("3.0.0", "3.0.0")),
        ("<= 2.0", ("2.0.1", "2.0.1")),
        ("<3 >1", ("2.1.1", "v2.1.1")),
        ("^0.2.3", ("0.2.9", "0.2.9")),
        ("^0.2", ("0.2.9", "0.2.9")),
        ("~0", ("0.3.0", "0.3.0")),
        (">=2.2.0-rc.1 <2.3", ("2.2.0-rc.2", "2.2.0-rc.2")),
        ("^7", None),
        ("release-{version}", ("4.0.0", "release-4.0.0")),
        ("{version}-arm64", ("2.0.0", "2.0.0-arm64")),
    ],
)  # fmt: skip
def test_the_newest_tag_of_a_range_or_a_pattern_is_found(chosen: str, newest: tuple[str, str] | None) -> None:
    followed = parse_follow(f"registry:5000/a/b:{chosen}")

    assert ("registry:5000/a/b", newest) == (followed.name, followed.newest(TAGS))


@pytest.mark.parametrize(
    "text",
    ["", "a/b", "registry:5000/a", "a/b:", "a/b:latest", "a/b:^x.1", "a/b:1.2.3.4", "a/b:>= ", "A:^1", "a b:^1",
     "a:{version}/x", "a:^1 ||", "a:" + "1 " * 300],
)  # fmt: skip
def test_what_is_nothing_to_follow_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_follow(text)
