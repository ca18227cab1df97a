"""Takes a judge's verdicts on pairs out of a run, with what rows and answers tell of the benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

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
    prompts: dict[int, str] = {}
    reasons: tuple[str, ...] = ()
    ours: Lengths = {}
    verdicts = store.verdicts(judge=judge, kind="pairwise", baseline=baseline)
    for generator, group in groupby(verdicts, key=lambda verdict: verdict.generator):
        if not prompts:
            ours = _lengths(store, baseline)
            rows = list(store.rows())
            prompts = {row.index: "" if row.before else fingerprint(row.turns[0]) for row in rows}
            reasons = tuple(_reasons(rows, baseline, ours))
        yield _columns(list(group), ours, _lengths(store, generator), prompts, reasons)


def _reasons(rows: Sequence[Row], baseline: str, lengths: Lengths) -> Iterator[str]:
    """Why figures over these rows are not the leaderboard's."""
    known = known_set("alpaca_eval")
    ours = [lengths.get((row.index, 0)) for row in rows]
    yield from set_reasons([known.position(row) for row in rows], ours, baseline)
    if turns := sum(len(row.turns) > 1 for row in rows):
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
