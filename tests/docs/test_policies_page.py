"""The page of policies names what there is: settings with options and defaults, and words for what defers."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from outrider.cli.commands.policy import policy
from outrider.core.rollout.policy import Rule
from outrider.core.rollout.policy_settings import Policy

PAGE = (Path(__file__).parents[2] / "docs" / "use" / "policies.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its own heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_every_setting_stands_on_the_page_with_an_option_that_exists() -> None:
    options = {name for option in policy.params for name in (*option.opts, *option.secondary_opts)}

    table = rows("The settings")

    assert {row[0].strip("`") for row in table} == {one.name for one in fields(Policy)}
    for setting, given, *_ in table:
        named = set(re.findall(r"--[a-z-]+", given))
        assert named, setting
        assert named <= options


def test_the_numbers_that_are_defaults_are_those_of_the_code() -> None:
    shown = {row[0].strip("`"): row[2] for row in rows("The settings")}
    words = {"True": "on", "False": "off", "None": "none", "()": "none", "": "none", "100.0": "100"}

    for name, default in shown.items():
        value = str(getattr(Policy(), name))
        assert default == words.get(value, value), name


def test_every_word_for_what_defers_stands_on_the_page() -> None:
    words = [word for row in rows("What a deferred instance is told") for word in re.findall(r"`([a-z-]+)`", row[0])]

    assert sorted(get_args(Rule)) == sorted(words)
