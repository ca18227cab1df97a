"""Takes a judge's verdicts on pairs out of a run, with what rows and answers tell of the benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from jobs.records import Row, Verdict
from jobs.scores.columns import PreferencesError
from jobs.scores.difficulty import Difficulties
from jobs.scores.preferences import Gamed, Preferences, set_reasons
from jobs.scores.score import Score, score
from jobs.sets.known_sets import fingerprint, known_set
from jobs.store import Store

Lengths = Mapping[tuple[int, int], int]
"""Characters of each answer, by row and turn."""


def scores_from_store(
    store: Store,
    judge: str,
    baseline: str,
    difficulties: Difficulties | None = None,
    gamed: Gamed | None = None,
) -> list[Score]:
    """Score each generator that has verdicts of this judge against this baseline.

    Raises:
        PreferencesError: a verdict has a value, but one of the judged answers is missing; or a row has
            no difficulty.
    """
    return [
        score(found, None if difficulties is None else difficulties.of(found), gamed)
        for found in preferences_from_store(store, judge, baseline)
    ]


def preferences_from_store(store: Store, judge: str, baseline: str) -> Iterator[Preferences]:
    """Yield a judge's pairwise verdicts, one `Preferences` for each generator.

    Rows without a verdict or without both answers are only counted, in `unjudged`.

    Raises:
        PreferencesError: a verdict has a value, but one of the judged answers is missing.
    """
    asked: list[_Asked] = []
    prompts: dict[int, str] = {}
    reasons: tuple[str, ...] = ()
    ours: Lengths = {}
    verdicts = store.verdicts(judge=judge, kind="pairwise", baseline=baseline)
    for generator, group in groupby(verdicts, key=lambda verdict: verdict.generator):
        if not asked:
            ours = _lengths(store, baseline)
            asked = list(map(_to_asked, store.rows()))
            prompts = {each.row: each.prompt for each in asked}
            reasons = tuple(_reasons(asked, baseline, ours))
        yield _columns(list(group), ours, _lengths(store, generator), prompts, reasons)


class _Asked(NamedTuple):
    """What counts of a row, without its texts."""

    row: int
    prompt: str
    """The fingerprint of the prompt."""
    position: int | None
    """The position in AlpacaEval; None for a row of another set."""
    turns: int


def _to_asked(row: Row) -> _Asked:
    prompt = fingerprint(row.turns[0]) if not row.before else ""
    return _Asked(row.index, prompt, known_set("alpaca_eval").positions.get(prompt), len(row.turns))


def _reasons(asked: Sequence[_Asked], baseline: str, lengths: Lengths) -> Iterator[str]:
    """Why figures over these rows are not the leaderboard's."""
    ours = [lengths.get((each.row, 0)) for each in asked]
    yield from set_reasons([each.position for each in asked], ours, baseline)
    if turns := sum(each.turns > 1 for each in asked):
        yield f"only the first turn of {turns} rows with several turns"


def _lengths(store: Store, generator: str) -> Lengths:
    return {(answer.row, answer.turn): len(answer.text) for answer in store.answers(generator)}


def _columns(
    verdicts: Sequence[Verdict],
    ours: Lengths,
    theirs: Lengths,
    prompts: Mapping[int, str],
    reasons: tuple[str, ...],
) -> Preferences:
    first = verdicts[0]
    answered = ours.keys() & theirs.keys()
    whole = [v for v in verdicts if (v.row, v.turn) in answered]
    for v in verdicts:
        if v.value is not None and (v.row, v.turn) not in answered:
            raise PreferencesError(
                f"{v.judge!r} judged row {v.row}, turn {v.turn}, but the answer of {v.generator!r} or "
                f"of {v.baseline!r} is not there"
            )
    return Preferences(
        first.generator,
        tuple(v.row for v in whole),
        tuple(v.value for v in whole),
        tuple(ours[v.row, v.turn] for v in whole),
        tuple(theirs[v.row, v.turn] for v in whole),
        first.judge,
        first.baseline,
        unjudged=len(verdicts) - len(whole) + len(prompts) - len({v.row for v in verdicts}),
        prompts=tuple(prompts[v.row] for v in whole),
        reasons=reasons,
    )
