"""A picture in PlantUML's language, for wikis that draw it.

As in Mermaid, names hold no dots; unlike there, an arrow may stand anywhere, so all arrows come after all states.
"""

from collections.abc import Iterator, Mapping

from outrider.core.chart.draw import Box, Picture
from outrider.core.chart.draw_mermaid import plain_names
from outrider.core.chart.draw_sheet import MARK_PAPER
from outrider.core.chart.draw_theme import Theme, recolored

_LOOKS = """\
skinparam backgroundColor white
skinparam shadowing false
skinparam DefaultFontName Arimo
skinparam ArrowColor #5f6368
skinparam ArrowFontColor #202124
skinparam TitleFontColor #202124
skinparam state {
  BackgroundColor white
  BorderColor #5f6368
  FontColor #202124
  AttributeFontColor #5f6368
  StartColor #202124
  EndColor #202124
}"""


def to_plantuml(picture: Picture, sideways: bool = False, theme: Theme = "light") -> str:
    """PlantUML source for ``picture``.

    Args:
        sideways: From left to right; else from the top down.
    """
    names = plain_names(picture.boxes)
    lines = ["@startuml", f"title {_escape(picture.name)}", "hide empty description"]
    lines.append("left to right direction" if sideways else "top to bottom direction")
    lines += recolored(_LOOKS, theme).splitlines()
    for box in picture.boxes:
        lines += _box(box, names, recolored(MARK_PAPER, theme), "")
    if picture.initial:
        lines.append(f"[*] --> {names[picture.initial]}")
    for arrow in picture.arrows:
        line = "-[bold]->" if arrow.main else "-->"
        label = r"\n".join(map(_escape, arrow.lines))
        lines.append(f"{names[arrow.source]} {line} {names[arrow.target]}" + (f" : {label}" if label else ""))
    return "\n".join([*lines, "@enduml"]) + "\n"


def _box(box: Box, names: Mapping[str, str], paper: str, indent: str) -> Iterator[str]:
    name = names[box.id]
    kind = " <<history>>" if box.label == "H" else " <<history*>>" if box.label == "H*" else ""
    title = f'{indent}state "{_escape(box.label)}" as {name}'
    if box.kind == "history":
        yield f"{indent}state {name}{kind}"
        return
    if not box.children:
        yield f"{title} {paper}" if box.marks else title
        yield from (f"{indent}{name} : <b>{_escape(mark)}</b>" for mark in box.marks)
        if box.note:
            yield f"{indent}{name} : {_escape(box.note)}"
        if box.kind == "final":
            yield f"{indent}{name} --> [*]"
        return
    yield f"{title} {{"
    for child in box.children:
        yield from _box(child, names, paper, f"{indent}  ")
    if box.initial:
        yield f"{indent}  [*] --> {names[box.initial]}"
    yield f"{indent}}}"


def _escape(text: str) -> str:
    return text.replace('"', "'").replace("\\", "/")
