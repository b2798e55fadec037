"""Write the table of settings in docs/use/configuration.md from the dataclasses, or check that it is up to date.

python tools/settings_doc.py           writes the part between the markers
python tools/settings_doc.py --check   changes nothing; prints a diff and leaves with 1 when it is stale
"""

import argparse
import difflib
import sys
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from outrider.config.load import SECTIONS, all_fields, type_of
from outrider.config.sections import Rule, Secret, host_name, state_root

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs/use/configuration.md")
BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"
TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Secret: "text"}


def generated() -> str:
    """The part of the page between the markers."""
    lines = [
        "<!-- by tools/settings_doc.py from src/outrider/config/sections.py and the drivers: change those, then"
        " `make diagrams` -->"
    ]
    for section, kind in SECTIONS.items():
        title = (kind.__doc__ or "").splitlines()[0].partition(": ")[2]
        lines += ["", f"### [{section}]", "", title[:1].upper() + title[1:], ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for its_section, name, each, rule in all_fields():
            if its_section == section:
                cells = (f"`{name}`", type_words(type_of(section, name)), default_words(each), meaning(rule))
                lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, "", ""])


def type_words(kind: Any) -> str:
    """The type for an operator: ``number``, ``list of text``, ``"a"`` or ``"b"``."""
    if get_origin(kind) is Literal:
        return " or ".join(f'`"{word}"`' for word in get_args(kind))
    if get_origin(kind) is tuple:
        return "list of text" if get_args(kind)[0] is str else "list of tables"
    if kind == Path | None:
        return TYPES[Path]
    return TYPES.get(kind, "table of text")


def default_words(each: "Field[Any]") -> str:
    """The default as TOML has it, or what it is computed from."""
    if each.default_factory is host_name:
        return "the host name"
    if each.default_factory is state_root:
        return f"`{state_root()}/` and `instance.id`"
    if each.default_factory is not MISSING:
        return "`{}`"
    if each.default is MISSING:
        return "**required**"
    if each.default is None or isinstance(each.default, Secret):
        return ""
    return f"`{msgspec.json.encode(each.default).decode()}`"


def meaning(rule: Rule) -> str:
    """Help and bounds."""
    bounds = [
        words
        for words in (
            f"at least {rule.least:g}" if rule.least is not None else "",
            f"more than {rule.above:g}" if rule.above is not None else "",
            f"at most {rule.most:g}" if rule.most is not None else "",
            rule.wanted,
        )
        if words
    ]
    return f"{rule.help} ({'; '.join(bounds)})" if bounds else rule.help


def renewed(page: str) -> str:
    """``page`` with its generated part written anew.

    Raises:
        SystemExit: the markers are missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{generated()}{END}{after}"


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Do what the module says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    chosen = parser.parse_args(arguments)
    path = root / PAGE
    page = path.read_text()
    wanted = renewed(page)
    if not chosen.check:
        path.write_text(wanted)
        return 0
    if page != wanted:
        sys.stdout.writelines(
            difflib.unified_diff(page.splitlines(True), wanted.splitlines(True), str(PAGE), f"{PAGE} (from the code)")
        )
        print(f"Error: {PAGE} is stale: run `make diagrams`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
