"""Keep one sentence on one line in Markdown pages.

    python tools/sentences.py [PAGE]...           prints each line that holds another number of sentences; leaves with 1
    python tools/sentences.py --write [PAGE]...   writes the pages in that form

Without PAGE: all pages that git tracks, but for the change log and captured files. A line of its own makes the
difference between two versions of a page readable: a changed sentence is a changed line. Tables, code, headings and
HTML comments stay as they are.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXEMPT = re.compile(r"CHANGELOG\.md|tests/data/.*")

# a full stop behind these ends no sentence
ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "ca.", "approx.", "incl.", "no.", "fig.", "St.", "...")
_END = re.compile(r"""[.!?][)\]"'*_]*\ (?=\S)""")
_CODE = re.compile(r"(`+).+?\1")
_LINK_TARGET = re.compile(r"\]\([^)\s]*\)")
_NUMBER = re.compile(r"\W*\d+\.\W*")
_MARKER = re.compile(r"(\s*)([-*+]|\d+[.)])(\s+)")
_FENCE = re.compile(r"\s*(```|~~~)")
_AS_IT_IS = re.compile(r"\s*(#|\||<!--|>|(---|===|\*\*\*)\s*$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Lines of a page that belong together.

    Attributes:
        first: 1-based number of its first line.
        lines: As they stand in the page.
        prose: Whether they are sentences: a paragraph or an item of a list.
    """

    first: int
    lines: list[str] = field(default_factory=list)
    prose: bool

    def one_per_line(self) -> list[str]:
        """Its lines with one sentence on each; what isn't prose is left alone."""
        if not self.prose:
            return self.lines
        marker = _MARKER.match(self.lines[0])
        head = marker.group() if marker else " " * (len(self.lines[0]) - len(self.lines[0].lstrip()))
        text = " ".join([self.lines[0][len(head) :].strip(), *(line.strip() for line in self.lines[1:])])
        rest = " " * len(head)
        return [f"{rest if number else head}{sentence}" for number, sentence in enumerate(sentences(text))]


def sentences(text: str) -> list[str]:
    """The sentences of ``text``, one paragraph of Markdown without line breaks."""
    blind = _LINK_TARGET.sub(lambda hit: "x" * len(hit.group()), text)
    blind = _CODE.sub(lambda hit: "x" * len(hit.group()), blind)
    found, start = [], 0
    for end in _END.finditer(blind):
        before = blind[start : end.end()].rstrip()
        words = before.rstrip(")]\"'*_").split()
        if words and words[-1].lstrip("(\"'*_[").endswith(ABBREVIATIONS):
            continue
        if _NUMBER.fullmatch(before):  # "1." at the beginning of a label is a number
            continue
        found.append(text[start : end.end()].rstrip())
        start = end.end()
    return [*found, text[start:]]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of ``page`` in order; joined, their lines are the page's."""
    lines = page.splitlines()
    at = 0
    in_list = False
    while at < len(lines):
        line, start = lines[at], at
        fence = _FENCE.match(line)
        if fence:
            at = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence.group(1)), len(lines) - 1) + 1
        elif line.lstrip().startswith("<!--"):
            at = next((n for n in range(at, len(lines)) if "-->" in lines[n]), len(lines) - 1) + 1
        elif not line.strip() or _AS_IT_IS.match(line) or (line.startswith("    ") and not in_list):
            at += 1
        else:
            in_list = in_list or _MARKER.match(line) is not None
            at += 1
            while at < len(lines) and lines[at].strip() and not _begins_another(lines[at]):
                at += 1
            yield Block(first=start + 1, lines=lines[start:at], prose=True)
            continue
        if line.strip() and not line.startswith(" "):
            in_list = False
        yield Block(first=start + 1, lines=lines[start:at], prose=False)


def _begins_another(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_MARKER, _FENCE, _AS_IT_IS))


def one_per_line(page: str) -> str:
    """``page`` with one sentence on each line of prose."""
    return "".join(f"{line}\n" for block in blocks(page) for line in block.one_per_line())


def problems(page: str) -> list[str]:
    """Blocks of ``page`` that aren't in that form, as ``12: The first words``, by the line where each begins."""
    return [
        f"{block.first}: {block.lines[0].strip()[:80]}" for block in blocks(page) if block.one_per_line() != block.lines
    ]


def pages() -> list[Path]:
    """The pages that must have that form."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [ROOT / name for name in listed if not EXEMPT.fullmatch(name) and (ROOT / name).exists()]


def main() -> int:
    """Check or write; returns the exit code."""
    parser = argparse.ArgumentParser(description="Keep one sentence on one line in Markdown pages.")
    parser.add_argument("--write", action="store_true", help="write the pages in that form")
    parser.add_argument("page", nargs="*", type=Path, help="default: all pages that git tracks")
    chosen = parser.parse_args()
    wrong = 0
    for path in chosen.page or pages():
        page = path.read_text()
        if chosen.write:
            path.write_text(one_per_line(page))
            continue
        for problem in problems(page):
            wrong += 1
            print(f"{path}:{problem}")
    if wrong:
        print("Error: put one sentence on each line: run `python tools/sentences.py --write`", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
