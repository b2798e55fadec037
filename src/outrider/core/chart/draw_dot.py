"""A picture in Graphviz' language. Compound states become clusters; an arrow to or from one ends at its border."""

import textwrap
from collections.abc import Iterator

from outrider.core.chart.draw import Arrow, Box, Picture
from outrider.core.chart.draw_sheet import MARK, MARK_PAPER
from outrider.core.chart.draw_theme import Theme, recolored

PAPER = ("#e8f0fe", "#fff4dc", "#e6f4ea", "#f3e8fd", "#e4f7fb", "#fde8e8", "#eeeeee", "#fbe9f3")
"""Backgrounds of the top states, in turn."""

WIDTH = 26
"""Characters in one line of a note."""


def to_dot(picture: Picture, sideways: bool = False, theme: Theme = "light") -> str:
    """Graphviz source for ``picture``.

    Args:
        sideways: From left to right; else from the top down.
    """
    size, gap = (13, 0.26) if sideways else (11, 0.42)
    lines = [
        f"digraph {_quote(picture.name)} {{",
        f"  graph [compound=true, rankdir={'LR' if sideways else 'TB'}, fontname=Arimo, fontsize={size + 2}, "
        f'nodesep=0.28, ranksep={gap}, pad=0.15, newrank=true, bgcolor="white"];',
        '  node [shape=box, style="rounded,filled", fillcolor="white", color="#5f6368", fontname=Arimo, '
        f'fontsize={size}, margin="0.08,0.05", height=0.3, width=0.5];',
        '  edge [fontname=Arimo, fontsize=9, color="#80868b", fontcolor="#5f6368", arrowsize=0.65];',
    ]
    if theme == "dark":  # Graphviz' own ink is black
        lines.append('  graph [fontcolor="#202124"]; node [fontcolor="#202124"];')
    inwards = {arrow.source for arrow in picture.arrows if arrow.target.startswith(f"{arrow.source}.")}
    for box in picture.boxes:
        lines += _box(box, inwards, indent="  ")
    if picture.initial:
        lines += [_dot("start", "  "), f"  start -> {_end(picture, picture.initial, 'lhead')};"]
    lines += [_arrow(picture, arrow) for arrow in picture.arrows]
    return recolored("\n".join([*lines, "}"]) + "\n", theme)


def _box(box: Box, inwards: set[str], indent: str) -> Iterator[str]:
    paper = PAPER[box.top % len(PAPER)]
    if not box.children:
        yield f"{indent}{_quote(box.id)} [{_look(box, paper)}];"
        return
    yield f"{indent}subgraph {_quote('cluster_' + box.id)} {{"
    yield f'{indent}  label={_quote(box.label)}; labeljust=l; style="rounded,filled"; fillcolor="{paper}"; '
    yield f'{indent}  color="#9aa0a6"; margin=12;'
    if box.initial:
        yield _dot(f"start {box.id}", f"{indent}  ")
    if box.id in inwards:
        # An arrow can't start at the border of a cluster and end inside of it: it starts at a node of its own.
        yield f'{indent}  {_quote(f"any {box.id}")} [label="in any of these", shape=plaintext, fillcolor=none];'
    for child in box.children:
        yield from _box(child, inwards, f"{indent}  ")
    if box.initial:
        yield f"{indent}  {_quote(f'start {box.id}')} -> {_quote(_leaf(box))} [weight=4{_head(box)}];"
    yield f"{indent}}}"


def _look(box: Box, paper: str) -> str:
    label = _quote(box.label)
    if box.note or box.marks:
        note = "<br/>".join(map(_escape, textwrap.wrap(box.note, WIDTH)))
        label = f"<b>{_escape(box.label)}</b>"
        label += "".join(f'<br/><font color="{MARK}"><b>{_escape(mark)}</b></font>' for mark in box.marks)
        label += f'<br/><font point-size="8.5" color="#5f6368">{note}</font>' if note else ""
        label = f"<{label}>"
    if box.marks:
        paper = MARK_PAPER
    match box.kind:
        case "history":
            return f"label={label}, shape=circle, width=0.3, margin=0"
        case "final":
            return f"label={label}, peripheries=2"
        case "outside":
            return f'label={label}, style="rounded,dashed,filled", fillcolor="{paper}"'
        case _:
            alone = "." not in box.id
            filled = alone or box.marks
            return f'label={label}, fillcolor="{paper if filled else "white"}"' + (", penwidth=1.6" if alone else "")


def _dot(name: str, indent: str) -> str:
    return f'{indent}{_quote(name)} [shape=circle, label="", width=0.1, height=0.1, fillcolor="#202124"];'


def _head(box: Box) -> str:
    """An arrow to the initial child stops at its border when it has an inside."""
    first = next(child for child in box.children if child.id == box.initial)
    return f", lhead={_quote('cluster_' + first.id)}" if first.children else ""


def _leaf(box: Box) -> str:
    """A node in ``box``: Graphviz has arrows between nodes only."""
    while box.children:
        box = next((child for child in box.children if child.id == box.initial), box.children[0])
    return box.id


def _find(boxes: tuple[Box, ...], state: str) -> Box:
    for box in boxes:
        if box.id == state:
            return box
    for box in boxes:
        if state.startswith(f"{box.id}."):
            return _find(box.children, state)
    raise KeyError(state)


def _end(picture: Picture, state: str, clip: str) -> str:
    box = _find(picture.boxes, state)
    return _quote(_leaf(box)) + (f" [{clip}={_quote('cluster_' + box.id)}]" if box.children else "")


def _arrow(picture: Picture, arrow: Arrow) -> str:
    source, target = _find(picture.boxes, arrow.source), _find(picture.boxes, arrow.target)
    inwards = arrow.target.startswith(f"{arrow.source}.")
    tail, head = _quote(f"any {source.id}" if inwards else _leaf(source)), _quote(_leaf(target))
    tail_box = source.id if source.children and not inwards else ""
    head_box = target.id if target.children else ""
    looks = [f"label={_quote(chr(10).join(arrow.lines))}"]
    if target.top < source.top and target.kind != "outside":
        # The way back to an earlier top state must not turn the picture round, so it is drawn from its end. The
        # other means, constraint=false, makes graphviz-pure 0.2.2 fail on some charts ("trouble in init_rank").
        tail, head, tail_box, head_box = head, tail, head_box, tail_box
        looks.append("dir=back")
    looks += [f"ltail={_quote(f'cluster_{tail_box}')}"] if tail_box else []
    looks += [f"lhead={_quote(f'cluster_{head_box}')}"] if head_box else []
    if arrow.main:
        looks.append('color="#202124", fontcolor="#202124", penwidth=1.5, weight=8')
    elif source.children:
        looks.append("style=dashed")
    return f"  {tail} -> {head} [{', '.join(looks)}];"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
