"""The field's words, not ours: none of the private words that were replaced is left in code, charts, docs or help.

``python tests/docs/test_vocabulary.py CHECKOUT`` prints what is left. The changelog and the decisions keep the words
of their time, and captures of foreign programs are nobody's prose.
"""

import functools
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from re._constants import BRANCH, LITERAL, SUBPATTERN  # type: ignore[import-not-found]
from re._parser import parse  # type: ignore[import-not-found]
from typing import Any

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word that isn't written any more.

    Attributes:
        pattern: Regular expression, without case unless it asks for it.
        instead: The word to write.
        allowed: Regular expressions of whole lines (``path:line``) that may hold it -> why.
    """

    pattern: str
    instead: str
    allowed: tuple[tuple[str, str], ...] = ()


PARTITIONS = ("tests/.*partitions/", "a partition's own hold on a sidekick: it stops it at a state")

WORDS = (
    Word(pattern=r"roll-outs?|roll-backs?", instead="rollout, rollback; verbs: roll out, roll back"),
    Word(pattern=r"\bfor ever\b", instead="forever"),
    Word(pattern=r"\banyhow\b", instead="regardless"),
    Word(pattern=r"poison", instead="block, blocked release"),
    Word(pattern=r"condemn", instead="block"),
    Word(pattern=r"\bmark(s|ed|ing)? (\S+ ){0,3}bad\b|marked[_-]bad", instead="block, blocked"),
    Word(pattern=r"(?<![a-z])declined?(?![a-z])", instead="undone (by an operator)"),
    Word(pattern=r"summon", instead="wake-up, wake; the rollout controller"),
    Word(pattern=r"(?<![a-z])scenes?(?![a-z])|(?-i:Scene)", instead="group snapshot"),
    Word(pattern=r"(?<![a-z])askers?(?![a-z])|(?-i:\bAsker)", instead="the instance that checks in"),
    Word(pattern=r"turnstile|NeedsTurn\b", instead="group lock"),
    Word(pattern=r"(?-i:\bclass Place\b|import .*\bPlace\b)", instead="store context, queue position"),
    Word(
        pattern=r"(?-i:\bActor\b|\bActs?\b(?=[(\]:,]))|\bcurrent_act\b|\bwith acting\(",
        instead="request context, principal",
    ),
    Word(
        pattern=r"(?-i:\bGate\b)|\bgate(_place|_key)\b|gates/|\bgated\b",
        instead="auth middleware, percentage, queue ticket",
    ),
    Word(pattern=r"\b(the|a|percentage|its|one) gate\b", instead="auth middleware, percentage, queue ticket"),
    Word(pattern=r"chronicl|\btellers?\b|messenger", instead="activity recorder, background tasks, webhook sender"),
    Word(pattern=r"(?-i:\bEDGES\b|\bCROSSES\b|\bCrossing\b)|\bcrossing\(", instead="failpoint"),
    Word(pattern=r"AwakeClock|\bawake_s\b", instead="suspend-aware clock"),
    Word(pattern=r"(?<![a-z])ailing", instead="degraded"),
    Word(pattern=r"\b(has|candidate|is)_fallen\b|\bfallen(_|:| is\b)|\.fallen\b", instead="down"),
    Word(pattern=r"(?<![a-z])reviv(e|es|ed|ing)(?![a-z])", instead="restart"),
    Word(pattern=r"(?<![a-z])enrol", instead="enqueue"),
    Word(
        pattern=r"(?-i:\bWish\b|\bSight\b)|\b_?wish\b(?! )",
        instead="request, pending",
        allowed=((r"as you wish", "plain English"),),
    ),
    Word(
        pattern=r"(?<![a-z])stamp(s|ed)?\b|ServerStamp",
        instead="write guard",
        allowed=((r"(Makefile|setup\.sh):", "make's word for a file that says what was done"),),
    ),
    Word(pattern=r"theatre|(?-i:\w*Stage\b)|(?<![a-z])weather", instead="harness, fixture, fault profile"),
    Word(
        pattern=r"idle[._]held|held_reason|\bheld back\b|\bholds? (\S+ )?back\b",
        instead="deferred",
        allowed=(
            (
                r"omaha/(types|events|write)|clients/fake|wire\.py|upstream/client|omaha_client|fake_clients|outbox|core/effects|policies\.md.*800",
                "the client's own word for a completion that waits",
            ),
            PARTITIONS,
        ),
    ),
    Word(pattern=r"\bnobody has this token\b", instead="invalid or revoked token"),
)

EXEMPT = re.compile(
    r"CHANGELOG\.md|LICENSE|constraints\.txt|docs/decisions/.*|tests/data/(?!.*journals/).*|tools/journal_names\.py"
    r"|tests/.*test_vocabulary\.py|tests/vendor/.*|.*\.(png|tar|gz|zip)"
)


@functools.cache
@functools.cache
def texts(root: Path) -> list[tuple[str, str]]:
    """The tracked files that people read, by path."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    found = []
    for name in listed:
        if not EXEMPT.fullmatch(name) and (root / name).is_file():
            try:
                found.append((name, (root / name).read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue
    return found


def literals(parsed: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    """Lower-case texts of which every match of a pattern contains one; ``("",)`` where that can't be told."""
    found: list[tuple[str, ...]] = [("",)]
    run = ""
    for kind, arguments in parsed:
        if kind is LITERAL:
            run += chr(arguments).lower()
            found.append((run,))
            continue
        run = ""
        if kind is SUBPATTERN:
            found.append(literals(arguments[3]))
        elif kind is BRANCH:
            found.append(tuple(text for branch in arguments[1] for text in literals(branch)))
    return max(found, key=lambda texts: min(map(len, texts)))


@functools.cache
def lower(text: str) -> str:
    return text.lower()


def left(word: Word, files: list[tuple[str, str]]) -> list[str]:
    """Where ``word`` still stands, as ``path:number: line``."""
    pattern = re.compile(word.pattern, re.IGNORECASE | re.MULTILINE)
    needed = literals(parse(word.pattern, re.IGNORECASE))
    found = []
    for name, text in files:
        # a pattern takes ten times as long as a text, and most words stand nowhere
        if not any(one in lower(text) for one in needed) or not pattern.search(text):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            shown = f"{name}:{number}: {line.strip()[:160]}"
            hit = pattern.search(line)
            if hit and not any(re.search(allowed, f"{name}:{line}") for allowed, _ in word.allowed):
                found.append(
                    shown
                    if len(line) <= 160
                    else f"{name}:{number}: ...{line[max(0, hit.start() - 60) : hit.end() + 60]}..."
                )
    return found


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("word", [pytest.param(word, id=word.instead) for word in WORDS])
def test_a_word_that_was_replaced_stands_nowhere(word: Word) -> None:
    """In sources, tests, the chart, the docs."""
    assert [] == left(word, texts(ROOT))


def test_what_a_match_must_contain_is_read_off_the_pattern() -> None:
    for pattern, needed in (
        ("poison", ("poison",)),
        (r"\bmark(s|ed)? (\S+ ){0,3}bad\b|marked[_-]bad", ("mark", "marked")),
        (r"(?-i:\bclass Place\b|import .*\bPlace\b)", ("class place", "import ")),
        (r"\b(the|a) gate\b", (" gate",)),
        (r"(?<![a-z])ill", ("ill",)),
        (r"abc?d*", ("ab",)),
        (r"[abc]x?", ("",)),
        (r"word|\w+", ("",)),
    ):
        assert needed == literals(parse(pattern, re.IGNORECASE)), pattern


def test_a_word_that_comes_back_is_found() -> None:
    assert ["a.md:2: The service SUMMONS it."] == left(
        Word(pattern="summon", instead="wake"), [("a.md", "\nThe service SUMMONS it.")]
    )


if __name__ == "__main__":
    every = texts(Path(sys.argv[1]).resolve())
    total = 0
    for one in WORDS:
        lines = left(one, every)
        total += len(lines)
        if lines:
            print(f"== {one.pattern}  ->  {one.instead}")
            print("\n".join(lines))
    print(f"{total} left")
    sys.exit(1 if total else 0)
