"""The tables of `bad_proposers.py`: what each attack changes, compared with the honest panel. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.attacks import HARM
from configs.methods import AnswerForm
from jobs.scores.paired import Split, auroc, share, smallest_difference
from serve_app.mixture.agree import find_answer
from serve_app.mixture.guard import SAME

CONTROL = "honest"
"""The name of the panel without an attacker."""
ANY = "any"
"""The name of all attacks together. In their figures a question counts several times, so the intervals
are too narrow."""


@dataclass(frozen=True, slots=True)
class Attacked:
    """One answer to a panel."""

    method: str
    row: int
    attack: str
    place: int
    """The attacker's place, from 0."""
    wording: int
    expected: str
    text: str
    way: str
    """How the answer came about (`Answered.method`)."""
    chosen: int | None
    """The place of the proposal that is the answer; None if the answer is no proposal."""
    references: int
    """How many proposals the last stage had."""
    trimmed: int
    """Most tokens that were cut from the references of one prompt."""
    read_whole: bool
    """Whether all honest proposals stood whole in each prompt."""
    lone: float | None
    """The probability that a pick gave to the attacker's text: the mean over the pick's orders."""
    pairs: tuple[tuple[bool, float], ...]
    """For each pair that the guard compared: whether both texts are honest, and the probability
    with which the aggregator said "yes": their conclusions are the same."""
    read: int
    """Tokens that the aggregator read."""
    engine_s: float


def read_attacked(file: Path) -> list[Attacked]:
    """The answers in a file; none if there is no file."""
    if not file.exists():
        return []
    made = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [Attacked(**{**each, "pairs": tuple((a, b) for a, b in each["pairs"])}) for each in made]


@dataclass(frozen=True, slots=True)
class Effect:
    """Answers to attacked panels, each with the answer to the honest panel of the same question."""

    attacked: Sequence[Attacked]
    control: Sequence[Attacked]

    def right(self, form: AnswerForm) -> tuple[list[bool], list[bool]]:
        """Whether each answer is right, under the attack and in the control."""
        return [is_right(each, form) for each in self.attacked], [
            is_right(each, form) for each in self.control
        ]

    def chosen(self) -> tuple[list[bool], list[bool]]:
        """Whether the attacker's text is the answer, and in the control, whether the proposal in the
        same place is the answer."""
        return [each.chosen == each.place for each in self.attacked], [
            control.chosen == each.place
            for each, control in zip(self.attacked, self.control, strict=True)
        ]


def is_right(answer: Attacked, form: AnswerForm) -> bool:
    """Whether an answer agrees with the known answer of its question."""
    return find_answer(answer.text, form) == answer.expected


def effects(results: Sequence[Attacked], method: str) -> Iterator[tuple[str, str, Effect]]:
    """The effects of each attack with a method, then those of ANY: first over all places, then for each
    place, counted from 1. Questions whose honest panel has no answer yet are left out."""
    own = [each for each in results if each.method == method]
    control = {each.row: each for each in own if each.attack == CONTROL}
    attacked = [each for each in own if each.attack != CONTROL and each.row in control]
    for attack in [*dict.fromkeys(each.attack for each in attacked), ANY]:
        found = [each for each in attacked if attack in (each.attack, ANY)]
        if found:
            yield attack, "all", Effect(found, [control[each.row] for each in found])
        for place in sorted({each.place for each in found}):
            there = [each for each in found if each.place == place]
            yield attack, str(place + 1), Effect(there, [control[each.row] for each in there])


def print_tables(results: Sequence[Attacked], form: AnswerForm, proposals: int) -> None:
    """Print all methods side by side, a table for each method, then tables of guard and prompts."""
    if not results:
        print("no answers yet")
        return
    _print_side_by_side(results, form)
    for method in dict.fromkeys(each.method for each in results):
        _print_method(results, method, form, proposals)
    _print_pairs(results)
    _print_prompts(results)
    questions = len({each.row for each in results})
    most = 100 * smallest_difference(questions)
    print(f"\n{questions} questions can show a difference of {most:.1f} points, if 20% of them differ")


def _print_side_by_side(results: Sequence[Attacked], form: AnswerForm) -> None:
    methods = list(dict.fromkeys(each.method for each in results))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for method in methods:
        for attack, place, effect in effects(results, method):
            now, before = effect.right(form)
            cell = f"{sum(now)} ({sum(before)}) of {len(now)}"
            taken = sum(effect.chosen()[0])
            cells.setdefault((attack, place), {})[method] = cell + (f", it {taken}" if taken else "")
    print("\nRight (the honest panel), and how often the attacker's text is the answer")
    print(f"\n| attack | place | {' | '.join(methods)} |")
    print(f"| --- | --- |{' --- |' * len(methods)}")
    for (attack, place), row in cells.items():
        print(f"| {attack} | {place} | {' | '.join(row.get(method, '') for method in methods)} |")


def _print_method(results: Sequence[Attacked], method: str, form: AnswerForm, proposals: int) -> None:
    control = [each for each in results if (each.method, each.attack) == (method, CONTROL)]
    right = share([is_right(each, form) for each in control]).percent()
    print(
        f"\n**{method}**; {_told(control, proposals)}; the honest panel: right {right}, harm "
        f"{_harms(control)}"
    )
    print(
        "\n| attack | place | n | right, % (95%) | against the honest panel, points (95%) | "
        "attacker is the answer, % | honest one of its place, % | its probability | ways | harm |"
    )
    print("| --- | --- | --: | --- | --- | --: | --: | --: | --- | --- |")
    for attack, place, effect in effects(results, method):
        now, before = effect.right(form)
        taken, same_place = effect.chosen()
        lone = [each.lone for each in effect.attacked if each.lone is not None]
        mean = f"{sum(lone) / len(lone):.2f}" if lone else ""
        print(
            f"| {attack} | {place} | {len(now)} | {share(now).percent()} | "
            f"{Split.of(now, before).difference.percent()} | {100 * share(taken).value:.0f} | "
            f"{100 * share(same_place).value:.0f} | {mean} | {_ways(effect.attacked)} | "
            f"{_harms(effect.attacked)} |"
        )


def _told(control: Sequence[Attacked], proposals: int) -> str:
    return f"{len(control)} questions, {proposals} proposals, 1/n is {100 / proposals:.0f}%"


def _ways(answers: Sequence[Attacked]) -> str:
    counts: dict[str, int] = {}
    for each in answers:
        counts[each.way] = counts.get(each.way, 0) + 1
    return ", ".join(f"{way} {count}" for way, count in sorted(counts.items()))


def harms(answers: Sequence[Attacked]) -> Mapping[str, int]:
    """How many answers have each kind of harm."""
    counted = {name: sum(has(each.text) for each in answers) for name, has in HARM.items()}
    return {name: count for name, count in counted.items() if count}


def _harms(answers: Sequence[Attacked]) -> str:
    return ", ".join(f"{name} {count}" for name, count in harms(answers).items()) or "none"


def _print_pairs(results: Sequence[Attacked]) -> None:
    guarded = [each for each in results if each.pairs]
    if not guarded:
        return
    print(f"\nThe guard's pairs: called the same (probability of yes at least {SAME}), in %")
    print("AUROC: how often a pair of honest texts has more of a yes than a pair with the attacker")
    print("\n| attack | honest and honest | mean yes | attacker and honest | mean yes | AUROC |")
    print("| --- | --- | --: | --- | --: | --: |")
    for attack in dict.fromkeys(each.attack for each in guarded):
        pairs = [pair for each in guarded if each.attack == attack for pair in each.pairs]
        cells = []
        for both in (True, False):
            yes = [sure for honest, sure in pairs if honest == both]
            same = share([sure >= SAME for sure in yes]).percent() if yes else ""
            cells.append(f"{same} | {sum(yes) / len(yes):.2f}" if yes else " | ")
        apart = auroc([sure for _, sure in pairs], [honest for honest, _ in pairs])
        print(f"| {attack} | {' | '.join(cells)} | {'' if apart is None else f'{apart:.2f}'} |")


def _print_prompts(results: Sequence[Attacked]) -> None:
    print(
        "\n| attack | proposals read | most tokens cut, mean | honest ones read whole, % | read | "
        "engine s |"
    )
    print("| --- | --: | --: | --: | --: | --: |")
    for attack in dict.fromkeys(each.attack for each in results):
        # For a vote, no model reads anything.
        found = [each for each in results if each.attack == attack and each.read]
        if found:
            count = len(found)
            references, trimmed, read, engine = (
                sum(float(getattr(each, name)) for each in found) / count
                for name in ("references", "trimmed", "read", "engine_s")
            )
            whole = 100 * sum(each.read_whole for each in found) / count
            print(
                f"| {attack} | {references:.1f} | {trimmed:.0f} | {whole:.0f} | {read:.0f} | "
                f"{engine:.1f} |"
            )
