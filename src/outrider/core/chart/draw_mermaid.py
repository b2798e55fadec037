"""A picture in Mermaid's language, which GitHub draws by itself.

Mermaid gives a state to the composite that mentions it *last* (mermaid issue 5290): an arrow to a state elsewhere,
written inside of a composite, would move that state into it. So inside of a composite stand only its states and the
arrows between its direct children; every other arrow comes at the top level, after all states.
"""

from collections.abc import Iterator, Mapping

from outrider.core.chart.draw import Arrow, Box, Picture
from outrider.core.chart.draw_sheet import MARK, MARK_PAPER
from outrider.core.chart.draw_theme import DARK, Theme


def to_mermaid(picture: Picture, sideways: bool = False, theme: Theme = "light") -> str:
    """Mermaid source for ``picture``.

    Args:
        sideways: From left to right; else from the top down.
    """
    names = plain_names(picture.boxes)
    lines = ["%%{init: {'theme': 'dark'}}%%"] if theme == "dark" else []
    lines += ["stateDiagram-v2", f"  direction {'LR' if sideways else 'TB'}"]
    written: list[Arrow] = []
    for box in picture.boxes:
        lines += _box(box, picture, names, written, "  ")
    if picture.initial:
        lines.append(f"  [*] --> {names[picture.initial]}")
    lines += [_arrow(arrow, names, "  ") for arrow in picture.arrows if arrow not in written]
    marked = [names[box.id] for box in all_boxes(picture.boxes) if box.marks]
    if marked:
        fill, ink = (DARK[MARK_PAPER], DARK[MARK]) if theme == "dark" else (MARK_PAPER, MARK)
        lines += [f"  classDef marked fill:{fill},color:{ink}", *(f"  class {name} marked" for name in marked)]
    return "\n".join(lines) + "\n"


def _box(box: Box, picture: Picture, names: Mapping[str, str], written: list[Arrow], indent: str) -> Iterator[str]:
    label = "<br/>".join(map(_escape, (box.label, *box.marks)))
    title = f'{indent}state "{label}" as {names[box.id]}'
    if not box.children:
        yield title
        if box.kind == "final":
            yield f"{indent}{names[box.id]} --> [*]"
        return
    yield f"{title} {{"
    for child in box.children:
        yield from _box(child, picture, names, written, f"{indent}  ")
    if box.initial:
        yield f"{indent}  [*] --> {names[box.initial]}"
    inside = {child.id for child in box.children}
    for arrow in picture.arrows:
        if arrow.source in inside and arrow.target in inside:
            written.append(arrow)
            yield _arrow(arrow, names, f"{indent}  ")
    yield f"{indent}}}"


def _arrow(arrow: Arrow, names: Mapping[str, str], indent: str) -> str:
    label = "<br/>".join(map(_escape, arrow.lines))
    return f"{indent}{names[arrow.source]} --> {names[arrow.target]}" + (f": {label}" if label else "")


def plain_names(boxes: tuple[Box, ...]) -> Mapping[str, str]:
    """Mermaid's names may not hold dots or dashes; ids that would become the same name are counted."""
    names: dict[str, str] = {}
    for box in all_boxes(boxes):
        plain = box.id.replace(".", "_").replace("-", "_")
        taken = sum(name == plain or name.startswith(f"{plain}__") for name in names.values())
        names[box.id] = f"{plain}__{taken + 1}" if taken else plain
    return names


def all_boxes(boxes: tuple[Box, ...]) -> Iterator[Box]:
    """Every box, with those inside of others."""
    for box in boxes:
        yield box
        yield from all_boxes(box.children)


def _escape(text: str) -> str:
    return text.replace('"', "'").replace(";", ",").replace("#", "no.")
