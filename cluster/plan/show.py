"""A placement as a table, a memory map in text, a picture (SVG), and JSON. Knows only plain data."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape

from rich import box
from rich.table import Table
from rich.text import Text

from cluster.cards.card import GIB
from cluster.plan.footprint import gib
from cluster.plan.placement import PlacedCard, PlacedReplica, Placement, Slot
from cluster.plan.predict import Prediction

# Told apart by the colour-blind too (Paul Tol's bright scheme), and by lightness in print.
COLOURS = {"weights": "#4477AA", "KV cache": "#EE6677", "runtime": "#CCBB44", "asleep": "#BBBBBB"}
MAP_COLUMNS = 60
LABEL, CHART, ROW, EDGE = 250, 620, 26, 20  # of the picture, in its units
TICKS = (1, 2, 5, 10, 20, 50, 100, 1000, 10_000)  # GiB
NAME_CHARACTERS = 24


def parts(member: PlacedReplica, slot: Slot) -> list[tuple[str, int]]:
    """What a slot's bytes are while `member` is awake, in the order in which they are drawn."""
    runtime = member.activations + member.residue
    named = [("weights", member.weights), ("KV cache", member.kv), ("runtime", runtime)]
    others = [other for other in slot.members if other is not member]
    kept = slot.total_bytes - max(m.awake for m in slot.members) if slot.keeps_loaded else 0
    asleep = min(kept, slot.total_bytes - member.awake) if others else 0
    return [*named, ("asleep", asleep)]


def table(placement: Placement, prediction: Prediction | None = None) -> Table:
    """Every replica: where it is, whether it takes turns, its bytes and its settings."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ["card", "model", "awake", "weights", "KV", "runtime", "fraction", "utilization"]
    speeds = {(s.model, s.replica): s for s in prediction.speeds} if prediction else {}
    for name in [*columns, *(["wake", "tokens/s"] if prediction else [])]:
        shown.add_column(name, justify="left" if name in ("card", "model", "awake") else "right")
    for seat in placement.seats():
        placed, member = placement.cards[seat.card], seat.member
        slot = placed.slots[seat.slot]
        row = [
            f"{seat.card} {placed.card.name}",
            _name(member),
            f"1 of {len(slot.members)} in turns" if slot.takes_turns else "always",
            gib(member.weights),
            gib(member.kv),
            gib(member.activations + member.residue),
            f"{member.fraction:.4f}",
            f"{member.utilization:.4f}",
        ]
        if speed := speeds.get((member.model, member.replica)):
            row += [f"{speed.wake_s:.1f} s", f"{speed.single:.0f} / {speed.batch:.0f}"]
        shown.add_row(*row)
    return shown


def summary(placement: Placement, prediction: Prediction | None = None) -> str:
    """What the table does not say, a line each."""
    lines = [
        f"host RAM on {node or 'the host'} for sleeping models: {gib(needed)}"
        for node, needed in placement.host_bytes
        if needed
    ]
    if placement.left_out:
        names = ", ".join(f"{card.name} ({card.indices[0]})" for card in placement.left_out)
        lines.append(f"not used, for the others are joined: {names}")
    if placement.elsewhere:
        lines.append(f"on no card: {', '.join(placement.elsewhere)}")
    if prediction:
        lines.append(
            f"predicted, not measured: AlpacaEval's 805 prompts in {prediction.hours:.1f} hours with "
            f"{prediction.swaps} turns (tokens/s: one sequence / all that run at a time)"
        )
    return "\n".join(lines)


def memory_map(placement: Placement) -> Text:
    """Each card as a bar of text; of a slot with turns a line for each member."""
    text = Text()
    for n, placed in enumerate(placement.cards):
        free = placed.usable_bytes - placed.used_bytes
        text.append(f"{n} {placed.card.name}: {gib(placed.used_bytes)} planned, {gib(free)} free\n")
        for before, slot, member in _rows(placed):
            text.append(" " * _columns(before, placed))
            at, bytes_ = _columns(before, placed), before
            for name, count in parts(member, slot):
                bytes_ += count
                width = _columns(bytes_, placed) - at
                text.append("█▓▒░"[list(COLOURS).index(name)] * width, style=COLOURS[name])
                at += width
            turns = ", in turns" if slot.takes_turns else ""
            text.append(f" {_name(member)} {gib(member.awake)}{turns}\n")
    text.append("█ weights  ▓ KV cache  ▒ runtime  ░ left by those asleep\n")
    return text


def _rows(placed: PlacedCard) -> Iterator[tuple[int, Slot, PlacedReplica]]:
    before = 0
    for slot in placed.slots:
        for member in slot.members:
            yield before, slot, member
        before += slot.total_bytes


def _columns(count: int, placed: PlacedCard) -> int:
    return round(count / placed.card.total_bytes * MAP_COLUMNS)


def _name(member: PlacedReplica) -> str:
    return f"{member.model} #{member.replica + 1}" if member.replica else member.model


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"


def to_json(placement: Placement, prediction: Prediction | None = None) -> dict[str, Any]:
    """All of it as plain data, for a program."""
    data = asdict(placement)
    data["host_bytes"] = dict(placement.host_bytes)
    return data | {"prediction": asdict(prediction) if prediction else None}


def svg(placement: Placement) -> str:
    """A picture: each card a bar from 0 to its bytes, each replica a line, each slot a frame."""
    drawn: list[str] = []
    y = 58.0
    for n, placed in enumerate(placement.cards):
        card, y = _svg_card(n, placed, y)
        drawn += card
    width, height = LABEL + CHART + 2 * EDGE, round(y + 34)
    x = EDGE + LABEL
    for name, colour in COLOURS.items():
        drawn.append(_box(x, y + 6, 14, 14, colour))
        drawn.append(_text(x + 20, y + 18, {"asleep": "left by sleepers"}.get(name, name)))
        x += 140 if name == "asleep" else 112
    drawn.append(_box(x, y + 6, 14, 14, "url(#reserve)", "#999999"))
    drawn.append(_text(x + 20, y + 18, "reserve"))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" font-size="13" role="img">',
            f"<title>Memory plan of {escape(placement.recipe)}</title>",
            '<defs><pattern id="reserve" width="6" height="6" patternUnits="userSpaceOnUse">'
            '<path d="M0 6L6 0" stroke="#999999"/></pattern></defs>',
            _box(0, 0, width, height, "#FFFFFF"),
            _text(EDGE, 32, f"Memory plan of {placement.recipe}", size=18),
            *drawn,
            "</svg>\n",
        ]
    )


def _svg_card(n: int, placed: PlacedCard, y: float) -> tuple[list[str], float]:
    left, total = EDGE + LABEL, placed.card.total_bytes

    def across(count: float) -> float:
        return left + count / total * CHART

    used, usable = placed.used_bytes, placed.usable_bytes
    words = f"{gib(used)} planned of {gib(total)}, {gib(usable - used)} free"
    words += "".join(f"; {len(s.members)} models take turns" for s in placed.slots if s.takes_turns)
    drawn = [
        _text(EDGE, y + 14, f"{n} {placed.card.name}", bold=True),
        _text(left, y + 14, words),
    ]
    y += 24
    rows = list(_rows(placed))
    bottom = y + ROW * max(1, len(rows))
    drawn.append(_box(left, y, CHART, bottom - y, "#F4F4F4"))
    drawn.append(_box(across(usable), y, across(total) - across(usable), bottom - y, "url(#reserve)"))
    frames: dict[int, list[float]] = {}
    for before, slot, member in rows:
        drawn.append(_text(EDGE, y + 17, _shortened(_name(member))))
        drawn.append(_text(left - 10, y + 17, gib(member.awake), anchor="end"))
        at = before
        for name, count in parts(member, slot):
            drawn.append(_box(across(at), y + 3, across(count) - left, ROW - 6, COLOURS[name]))
            if across(count) - left > 62 and name != "asleep":
                fill = "#FFFFFF" if name == "weights" else "#000000"
                drawn.append(_text(across(at) + 6, y + 17, gib(count), size=12, fill=fill))
            at += count
        frames.setdefault(before, [y, y, slot.total_bytes])[1] = y + ROW
        y += ROW
    for before, (top, end, size) in frames.items():
        drawn.append(_box(across(before), top, across(size) - left, end - top, "none", "#222222"))
    return [*drawn, *_svg_axis(total, bottom)], bottom + 38


def _svg_axis(total: int, y: float) -> Iterator[str]:
    step = next(step for step in TICKS if total / GIB / step <= 8)
    for gibs in range(0, total // GIB + 1, step):
        x = EDGE + LABEL + gibs * GIB / total * CHART
        yield f'<path d="M{x:.1f} {y}v5" stroke="#222222"/>'
        words = str(gibs) if gibs else "0 GiB"
        yield _text(x, y + 18, words, size=11, anchor="middle")


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{max(0, width):.1f}" height="{height:.1f}"'
    return f'<rect {where} fill="{fill}" stroke="{stroke}"/>'


def _text(x: float, y: float, words: str, **style: Any) -> str:
    weight = ' font-weight="bold"' if style.get("bold") else ""
    size = f' font-size="{style["size"]}"' if "size" in style else ""
    look = f'fill="{style.get("fill", "#222222")}" text-anchor="{style.get("anchor", "start")}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}{size}{weight}>{escape(words)}</text>'
