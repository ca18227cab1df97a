"""The table of `methods.py`: accuracy with intervals, what each method costs, and what n can show."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from configs.schema import AnswerForm
from jobs.calibrate import CalibrationError, Trial, calibrate, known_answer
from jobs.records import Row
from jobs.scores.paired import Split, share, smallest_difference
from serve_app.mixture.agree import find_answer
from serve_app.mixture.events import Call, ProposalDone, Summary
from serve_app.mixture.vote import vote

BEST = "best member alone"
NO_CALL = Call("", "proposer", 0, 0, 0.0)
EPSILON = 0.02
"""Largest loss for which `first` is calibrated."""


@dataclass(frozen=True, slots=True)
class Result:
    """One answer."""

    method: str
    row: int
    expected: str
    text: str
    way: str
    """How the answer came about (`Answered.method`)."""
    chosen: int | None
    proposals: tuple[tuple[int, str, str, float | None], ...]
    """Place, model, text and confidence of each proposal that came, by place."""
    calls: int
    read: int
    """Tokens that all calls read."""
    written: int
    models: int
    """Different models and roles that were called: turns, if the models share a card."""

    @classmethod
    def of(
        cls, method: str, row: Row, text: str, proposals: Sequence[ProposalDone], summary: Summary
    ) -> Self:
        answered = summary.answered
        return cls(
            method=method,
            row=row.index,
            expected=row.references[0],
            text=text,
            way=answered.method,
            chosen=None if answered.chosen is None else answered.chosen.place,
            proposals=tuple(sorted((p.place, p.model, p.text, p.confidence) for p in proposals)),
            calls=len(summary.calls),
            read=sum(call.prompt_tokens for call in summary.calls),
            written=sum(call.completion_tokens for call in summary.calls),
            models=len({(call.role, call.model) for call in summary.calls}),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_results(file: Path) -> list[Result]:
    """The answers that are there."""
    if not file.exists():
        return []
    made = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [
        Result(**{**each, "proposals": tuple(tuple(p) for p in each["proposals"])}) for each in made
    ]


def read_seconds(file: Path) -> dict[str, list[float]]:
    """The times of single answers that `seconds` has taken, in seconds, by method."""
    found: dict[str, list[float]] = {}
    if file.exists():
        for line in file.read_text("utf-8").splitlines():
            each = json.loads(line)
            found.setdefault(each["method"], []).append(each["s"])
    return found


def print_table(
    results: Sequence[Result],
    form: AnswerForm,
    about: Mapping[str, Any],
    seconds: Mapping[str, Sequence[float]],
) -> None:
    """Print each method beside the best member alone, over the questions that the method answered."""
    by_method: dict[str, dict[int, Result]] = {}
    for each in sorted(results, key=lambda each: each.row):
        by_method.setdefault(each.method, {})[each.row] = each
    if not by_method:
        print("no answers yet")
        return
    told = ", ".join(f"{count} of {model}" for model, count in about["samples"].items())
    print(f"{about['set']}, {about['config']}, samples: {told}")
    known = {each.row: known_answer(each.expected, form) for each in results}
    panel = {row: _proposals(by_method, row) for row in sorted(known)}
    panel = {row: proposals for row, proposals in panel.items() if proposals}
    first = {row: _is_right(of[0][2], known[row], form) for row, of in panel.items()}
    print(
        "\n| method | questions | right, % (95%) | best alone, % | difference, points (95%) | "
        "McNemar p | ways | calls | read | written | seconds | turns |"
    )
    print("| --- | --: | --- | --: | --- | --: | --- | --: | --: | --: | --: | --: |")
    alone = f"{BEST} | {len(first)} | {share(list(first.values())).percent()} | | | | | 1"
    print(f"| {alone} | | | {_mean(seconds.get(BEST, ()))} | 1 |")
    for name, found in by_method.items():
        rows = [row for row in found if row in panel]
        right = [_is_right(found[row].text, known[row], form) for row in rows]
        taken = seconds.get(name, ())
        _print_method(name, right, [first[row] for row in rows], [found[row] for row in rows], taken)
    _print_first(panel, by_method.get("merge"), known, form)
    _print_left_out(panel, known, form)
    _print_bounds(panel, known, form)


def _proposals(
    by_method: Mapping[str, Mapping[int, Result]], row: int
) -> tuple[tuple[int, str, str, float | None], ...]:
    """All proposals of the members: those of the method that has the most different models."""
    return max(
        (found[row].proposals for found in by_method.values() if row in found),
        key=lambda proposals: (len({p[1] for p in proposals}), len(proposals)),
    )


def _is_right(text: str, expected: str | None, form: AnswerForm) -> bool:
    return expected is not None and find_answer(text, form) == expected


def _print_method(
    name: str,
    right: list[bool],
    first: list[bool],
    found: Sequence[Result],
    seconds: Sequence[float],
) -> None:
    if not right:
        return
    against = Split.of(right, first)
    ways: dict[str, int] = {}
    for each in found:
        ways[each.way] = ways.get(each.way, 0) + 1
    told = ", ".join(f"{way} {count}" for way, count in sorted(ways.items()))
    mean = [
        sum(getattr(each, value) for each in found) / len(found)
        for value in ("calls", "read", "written", "models")
    ]
    calls, read, written, models = mean
    alone = 100 * sum(first) / len(first)
    quality = f"{share(right).percent()} | {alone:.1f} | {against.difference.percent()}"
    cost = f"{calls:.1f} | {read:.0f} | {written:.0f} | {_mean(seconds)} | {models:.1f}"
    print(f"| {name} | {len(right)} | {quality} | {against.p:.2f} | {told} | {cost} |")


def _mean(seconds: Sequence[float]) -> str:
    return f"{sum(seconds) / len(seconds):.0f}" if seconds else ""


def _print_first(
    panel: Mapping[int, Sequence[tuple[int, str, str, float | None]]],
    merged: Mapping[int, Result] | None,
    expected: Mapping[int, str | None],
    form: AnswerForm,
) -> None:
    if merged is None:
        return
    trials = [
        Trial(
            proposals[0][3],
            _is_right(proposals[0][2], expected[row], form),
            _is_right(merged[row].text, expected[row], form),
        )
        for row, proposals in panel.items()
        if proposals and row in merged
    ]
    try:
        found = calibrate(trials, EPSILON)
    except CalibrationError as error:
        print(f"\nfirst: {error}")
        return
    told = "none" if found.auroc is None else f"{found.auroc:.2f}"
    print(f"\nfirst (else merge): AUROC of the mean log-probability {told}")
    if found.checked_on is None:
        print(f"no tau loses at most {100 * EPSILON:g} points on the half that chooses")
        return
    half = found.checked_on
    print(
        f"tau {found.tau:g}, on the other half ({half.questions}): alone {100 * half.alone:.0f}%, "
        f"right {half.right.percent()}, merge {half.mixture.percent()}, best alone "
        f"{half.best.percent()}"
    )


def _print_left_out(
    panel: Mapping[int, Sequence[tuple[int, str, str, float | None]]],
    expected: Mapping[int, str | None],
    form: AnswerForm,
) -> None:
    """Whose presence helps: the vote of all members beside the vote without each of them."""
    members = dict.fromkeys(model for proposals in panel.values() for _, model, _, _ in proposals)
    if len(members) == 1:
        return  # nothing is left of the vote without the only member

    def votes(without: str | None) -> list[bool]:
        found = []
        for row, proposals in panel.items():
            won = vote(
                [
                    ProposalDone(1, place, model, text, 0.0, NO_CALL, confidence=confidence)
                    for place, model, text, confidence in proposals
                    if model != without
                ],
                form,
            )
            found.append(won is not None and _is_right(won.proposal.text, expected[row], form))
        return found

    of_all = votes(None)
    print(f"\nvote of all members: {share(of_all).percent()}")
    for member in members:
        rest = votes(member)
        more = Split.of(rest, of_all).difference.percent()
        print(f"without {member}: {share(rest).percent()}, {more} points more")


def _print_bounds(
    panel: Mapping[int, Sequence[tuple[int, str, str, float | None]]],
    expected: Mapping[int, str | None],
    form: AnswerForm,
) -> None:
    count = len(panel)
    if not count:
        return
    right = {
        row: [_is_right(text, expected[row], form) for _, _, text, _ in proposals]
        for row, proposals in panel.items()
    }
    oracle = [any(each) for each in right.values()]
    random_pick = sum(sum(each) / len(each) for each in right.values() if each) / len(right)
    longest = []
    for row, proposals in panel.items():
        text = max((p[2] for p in proposals), key=len, default="")
        longest.append(_is_right(text, expected[row], form))
    print(f"\noracle (no pick or vote can do better): {share(oracle).percent()}")
    print(
        f"a proposal drawn at random: {100 * random_pick:.1f}; the longest: {share(longest).percent()}"
    )
    most = 100 * smallest_difference(count)
    print(f"{count} questions can show a difference of {most:.1f} points, if two ways differ on 20%")
