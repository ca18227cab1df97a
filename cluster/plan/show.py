"""A placement as a table, as a memory map in text or as a picture (SVG), and as JSON.

This module only reads plain data.
"""

from collections.abc import Iterator
from dataclasses import asdict
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from cluster.plan.footprint import gib
from cluster.plan.placement import PlacedCard, PlacedReplica, PlacedSlot, Placement
from cluster.plan.predict import Prediction

COLOURS = {"weights": "#4477AA", "KV cache": "#EE6677", "runtime": "#CCBB44", "asleep": "#BBBBBB"}
"""Colours that colour-blind people can distinguish (Paul Tol's bright scheme), and that differ in
lightness in a black-and-white print."""
GLYPHS = {"weights": "█", "KV cache": "▓", "runtime": "▒", "asleep": "░"}
"""Characters that fill the parts in the map, for terminals without colours."""
LEGEND = {name: name for name in COLOURS} | {"asleep": "left by those asleep"}
"""Words for the parts in the map's last line."""
MAP_COLUMNS = 60
"""Columns of text that stand for the whole memory of a card."""
SVG_TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; white-space: pre; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own template without its web font: the picture loads nothing from elsewhere."""


def parts(replica: PlacedReplica, slot: PlacedSlot) -> list[tuple[str, int]]:
    """Name and bytes of each part of a slot while `replica` is awake, in the order of drawing."""
    runtime = replica.activations + replica.residue
    named = [("weights", replica.weights), ("KV cache", replica.kv), ("runtime", runtime)]
    kept = slot.total_bytes - max(m.peak for m in slot.members) if slot.keeps_loaded else 0
    asleep = min(kept, slot.total_bytes - replica.awake) if slot.takes_turns else 0
    return [*named, ("asleep", asleep)]


def table(placement: Placement, prediction: Prediction | None = None) -> Table:
    """A row for each replica: its card, whether it takes turns, its bytes, settings and speed."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ["card", "model", "awake", "weights", "KV", "runtime", "fraction", "utilization"]
    speeds = {(s.model, s.replica): s for s in prediction.speeds} if prediction else {}
    back = "wake or start" if placement.stoppers else "wake"
    for name in [*columns, *([back, "tokens/s"] if prediction else [])]:
        shown.add_column(name, justify="left" if name in ("card", "model", "awake") else "right")
    for replica in placement.replicas():
        slot = placement.slot(replica)
        row = [
            f"{replica.card} {placement.cards[replica.card].card.name}",
            _name(replica),
            _when_awake(replica, slot),
            gib(replica.weights),
            gib(replica.kv),
            gib(replica.activations + replica.residue),
            f"{replica.fraction:.4f}",
            f"{replica.utilization:.4f}",
        ]
        if speed := speeds.get((replica.model, replica.replica)):
            row += [f"{speed.wake_s:.1f} s", f"{speed.single:.0f} / {speed.batch:.0f}"]
        shown.add_row(*row)
    return shown


def summary(placement: Placement, prediction: Prediction | None = None) -> str:
    """What the table does not say, a line each: remarks about cards, stopped models, host RAM, unused
    cards, models on no card, seconds and hours."""
    cards = (*(placed.card for placed in placement.cards), *placement.left_out)
    lines = list(dict.fromkeys(remark for card in cards for remark in card.remarks))
    lines += [
        f"{_name(replica)} is stopped between its turns, because there is too little RAM; "
        f"a start takes about {replica.start_s:.0f} s (predicted)"
        for replica in placement.stoppers
    ]
    lines += [
        f"host RAM on {node or 'the host'} for engines and sleeping models: {gib(needed)}"
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
            f"predicted, not measured: an answer in about {prediction.answer_s:.0f} s, AlpacaEval's "
            f"805 prompts in {prediction.hours:.1f} hours with {prediction.swaps} turns "
            "(tokens/s: one sequence / all that run at a time)"
        )
    return "\n".join(lines)


def memory_map(placement: Placement) -> Text:
    """Each card as text, with a line for each replica: what its slot holds while it is awake."""
    text = Text()
    for number, placed in enumerate(placement.cards):
        used = f"{gib(placed.used_bytes)} planned"
        free = f"{gib(placed.usable_bytes - placed.used_bytes)} free"
        text.append(f"{number} {placed.card.name}: {used}, {free}\n")
        for before, slot, replica in _rows(placed):
            column = _columns(before, placed)
            text.append(" " * column)
            drawn = before
            for name, count in parts(replica, slot):
                drawn += count
                end = _columns(drawn, placed)
                text.append(GLYPHS[name] * (end - column), style=COLOURS[name])
                column = end
            turns = ", in turns" if slot.takes_turns else ""
            turns += ", else stopped" if replica.stops else ""
            text.append(f" {_name(replica)} {gib(replica.awake)}{turns}\n")
    for name, words in LEGEND.items():
        text.append(GLYPHS[name], style=COLOURS[name])
        text.append(f" {words}  ")
    text.rstrip()
    text.append("\n")
    return text


def svg(placement: Placement) -> str:
    """The memory map as a picture."""
    text = memory_map(placement)
    text.rstrip()
    title = f"Memory plan of {placement.recipe}"
    width = max(len(line) for line in [*text.plain.splitlines(), f"      {title}      "])
    console = Console(record=True, file=StringIO(), width=width, color_system="truecolor")
    console.print(text)
    console.print()  # an empty last line, because the export cuts the last one off at its bottom
    return console.export_svg(
        title=title, theme=DEFAULT_TERMINAL_THEME, code_format=SVG_TEMPLATE, unique_id="plan"
    )


def to_json(placement: Placement, prediction: Prediction | None = None) -> dict[str, Any]:
    """The whole placement as plain data, for a program."""
    data = asdict(placement)
    data["host_bytes"] = dict(placement.host_bytes)
    return data | {"prediction": asdict(prediction) if prediction else None}


def _rows(placed: PlacedCard) -> Iterator[tuple[int, PlacedSlot, PlacedReplica]]:
    """Every replica of a card, as (bytes of the slots before its own, its slot, the replica)."""
    before = 0
    for slot in placed.slots:
        for replica in slot.members:
            yield before, slot, replica
        before += slot.total_bytes


def _columns(count: int, placed: PlacedCard) -> int:
    """Columns of the map for `count` bytes of a card."""
    return round(count / placed.card.total_bytes * MAP_COLUMNS)


def _when_awake(replica: PlacedReplica, slot: PlacedSlot) -> str:
    if not slot.takes_turns:
        return "always"
    turns = f"1 of {len(slot.members)} in turns"
    return f"{turns}, else stopped" if replica.stops else turns


def _name(replica: PlacedReplica) -> str:
    return f"{replica.model} #{replica.replica + 1}" if replica.replica else replica.model
