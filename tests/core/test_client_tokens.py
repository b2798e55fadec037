"""Tokens of clients are read exactly or not at all, and hidden wherever they stand."""

import random
import string

import pytest

from outrider.core.client_tokens import masked, parse_token

TOKEN = f"oc_{'a1' * 6}_{'sT_-' * 10}xyz"


def test_a_token_is_read_and_never_shows_itself() -> None:
    token = parse_token(TOKEN)

    assert token is not None
    assert ("a1" * 6, TOKEN) == (token.id, token.text)
    assert f"oc_{'a1' * 6}_***" == str(token) == repr(token) == f"{token}"


@pytest.mark.parametrize(
    "text",
    ["", "oc_", TOKEN[:-1], TOKEN + "x", TOKEN + "\n", TOKEN.upper(), TOKEN.replace("a", "g", 1), f" {TOKEN}",
     TOKEN.replace("x", "ä"), TOKEN.replace("x", "%41"), f"{TOKEN}/", "oc_../../users"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    assert parse_token(text) is None


@pytest.mark.parametrize("text", [TOKEN, f"http://h/v1/update/{TOKEN}/", f"x {TOKEN}, {TOKEN[:30]}", f"{TOKEN}x" * 3])
def test_a_token_is_hidden_whole_or_cut(text: str) -> None:
    assert "sT_" not in masked(text)
    assert f"oc_{'a1' * 6}_***" in masked(text)


def test_ten_thousand_damaged_tokens_are_no_tokens() -> None:
    chance = random.Random(15)
    letters = string.printable + "äß/%\x00\ud800"
    for _ in range(10_000):
        text = list(TOKEN)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 3)] = chance.choices(letters, k=chance.randint(0, 3))
        damaged = "".join(text)
        found = parse_token(damaged)
        assert found is None or (found.text == damaged and len(damaged) == len(TOKEN) and damaged.isascii())
