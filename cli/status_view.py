"""The state of a server (`GET /v1/state`) as text for people at a terminal. Pure."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cli.status_troubles import troubles

GIB = 1 << 30
SHOWN = 8
"""Most answers that are shown, and most refusals; the latest ones."""
State = Mapping[str, Any]


def status_text(state: State, url: str, now: float | None = None) -> str:
    """The whole view, in lines.

    Args:
        state: the server's report.
        url: where the server is.
        now: the present time in seconds since 1970.
    """
    now = time.time() if now is None else now
    parts = [
        _head(state, url),
        _section("look at this", [f"! {line}" for line in troubles(state, now)]),
        *[_card(card) for card in state["cards"]],
        _section("without a card", _table(_WITHOUT_CARD, _without_card(state))),
        _section("models, last minute", _table(_MODELS, _models(state))),
        _section("last answers", _table(_ANSWERS, _answers(state))),
        _section("last refusals", _table(_REFUSALS, _refusals(state))),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(state: State, url: str) -> str:
    rates = state["rates"]
    window = rates["window_s"]
    answers = rates["answers"]
    share = f", {100 * rates['degraded'] / answers:.0f}% degraded" if answers else ""
    said = f"{answers} answers{share}, {rates['failed']} failed, {rates['left']} left by their clients"
    speed = (
        f"{rates['tokens_out'] / window:.1f} tokens/s written, {rates['tokens_in'] / window:.0f} read"
    )
    refused = ", ".join(f"{count} {code}" for code, count in rates["refused"].items()) or "none"
    work = f"{state['in_work']} in work"
    if state["in_work"]:
        work += f", the oldest for {seconds(state['oldest_s'])}"
    lines = [
        f"{state['mixture']['name']} at {url}: {work}",
        f"last {window:.0f} s: {said}; {speed}",
        f"refused: {refused}",
    ]
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


_MEMBERS = ("slot", "model", "engine", "for", "turn", "runs", "waits", "oldest", "memory", "last step")
_WITHOUT_CARD = ("model", "engine", "runs", "waits", "state")
_MODELS = ("model", "answered", "tokens/s", "room taken", "left out of answers")
_ANSWERS = ("ended", "request", "key", "model", "seconds", "tokens", "outcome", "")
_REFUSALS = ("at", "request", "key", "status", "code", "why")


def _card(card: State) -> str:
    gpus = card["gpus"]
    where = "CPU" if gpus is None else f"GPU {'+'.join(map(str, gpus))}"
    held = sum(_held(member) for member in card["members"])
    memory = f"{held / GIB:.1f} of {card['total_bytes'] / GIB:.1f} GiB held by the plan"
    title = f"{where} {card['name']} (node {card['node'][:8]}): {memory}"
    return _section(title, _table(_MEMBERS, [_member(member) for member in card["members"]]))


def _held(member: State) -> int:
    if member["state"] in ("absent", "not started", "stopped"):
        return 0
    size: int = member["asleep_bytes"] if member["state"] == "asleep" else member["awake_bytes"]
    return size


def _member(member: State) -> list[str]:
    state = "awake" if member["state"] == "resident" else member["state"]
    since = seconds(member["since_s"])
    if member["expected_s"] is not None:
        since += f" (as a rule {seconds(member['expected_s'])})"
    return [
        member["slot"],
        member["name"],
        state,
        since,
        member["turn"],
        str(member["in_flight"]),
        str(member["waiting"]),
        seconds(member["oldest_wait_s"]) if member["waiting"] else "",
        f"{_held(member) / GIB:.1f} GiB",
        "" if member["last_step_s"] is None else seconds(member["last_step_s"]),
    ]


def _without_card(state: State) -> list[list[str]]:
    models = state["rates"]["models"]
    rows = []
    for model in state["without_card"]:
        failing = models.get(model["name"], {}).get("failing", 0)
        word = model["why"] or (f"failing: {failing} times in a row" if failing else "up")
        rows.append(
            [model["name"], model["engine"], str(model["in_flight"]), str(model["waiting"]), word]
        )
    return rows


def _models(state: State) -> list[list[str]]:
    rates = state["rates"]
    room = {each["name"]: f"{each['taken']} of {each['capacity']}" for each in state["capacity"]}
    rows = []
    for name in dict.fromkeys([*room, *rates["models"]]):
        known = rates["models"].get(name, {})
        dropped = ", ".join(f"{n} {cause}" for cause, n in known.get("dropped", {}).items())
        speed = f"{known.get('tokens_out', 0) / rates['window_s']:.1f}"
        rows.append([name, str(known.get("calls", 0)), speed, room.get(name, ""), dropped])
    return rows


def _answers(state: State) -> list[list[str]]:
    rows = []
    for answer in state["answers"][:SHOWN]:
        why = ", ".join(answer["missing"]) or answer["code"] or ""
        tokens = f"{answer['tokens_in']}+{answer['tokens_out']}"
        rows.append(
            [
                _clock(answer["at"]),
                _cut(answer["request_id"], 36),
                _cut(answer["key"], 20),
                answer["model"],
                f"{answer['seconds']:.1f}",
                tokens,
                answer["outcome"],
                why,
            ]
        )
    return rows


def _refusals(state: State) -> list[list[str]]:
    return [
        [
            _clock(refusal["at"]),
            _cut(refusal["request_id"], 36),
            _cut(refusal["key"] or "none", 20),
            str(refusal["status"]),
            refusal["code"],
            _cut(refusal["why"] or refusal["path"], 100),
        ]
        for refusal in state["refusals"][:SHOWN]
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns, below their names; nothing if there are no rows. A column of which all rows are
    empty is left out."""
    if not rows:
        return []
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    cells = [[_printable(row[n]) for n in kept] for row in [head, *rows]]
    widths = [max(len(row[n]) for row in cells) for n in range(len(kept))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _printable(text: str) -> str:
    """A text without signs that would change the terminal or the order of what it shows."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def seconds(value: float) -> str:
    """A time for people: `0.4 s`, `12 s`, `3 min`, `2.5 h`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 180:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
