"""Ablations: which answers and verdicts they ask for, and that they find known effects."""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.quality.known_effects import checked, findings
from benchmarks.quality.known_models import BASELINE, CHARACTERS, InProcess
from configs.schema import Recipe
from jobs.ablation.ablate import AblationError, AblationTask, Findings, ablate
from jobs.ablation.table import tables
from jobs.records import Answer, Generator, Row, Verdict
from jobs.store import Store
from jobs.variants import Variant

ROWS = 6


def recipe(**changes: Any) -> Recipe:
    models: dict[str, Any] = {
        name: {"engine": "scripted"} for name in ("a", "b", "c", "spare", "writer", "a-int4")
    }
    data = {
        "name": "mix",
        "models": models,
        "layers": [{"proposers": [{"model": name} for name in "abc"]}],
        "aggregator": {"model": "writer"},
    }
    return Recipe.model_validate(data | changes)


def task(*parts: Any, **more: Any) -> AblationTask:
    return AblationTask(more.pop("recipe", recipe()), "base", "j", parts, **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(n, (f"question {n}",)) for n in range(ROWS))
        opened.add_generator(Generator("base", "file", "base"))
        opened.add_answers(Answer("base", row, 0, "base") for row in range(ROWS))
        yield opened


class FakeRun:
    """Puts answers and verdicts into the store, and remembers the generators of each request."""

    def __init__(self, store: Store, **wins: float | None) -> None:
        """A fake for one store.

        Args:
            store: Gets the answers and the verdicts.
            wins: How likely a generator wins, 0 to 1, by its name; 0.5 by default. With None its
                verdicts are unusable.
        """
        self.answered: list[list[str]] = []
        self.judged: list[list[str]] = []
        self._store = store
        self._wins = wins

    async def answer_with(self, variants: Sequence[Variant]) -> None:
        self.answered.append([variant.name for variant in variants])
        for variant in variants:
            self._store.add_generator(Generator(variant.name, "mixture", variant.name))
            self._store.add_answers(Answer(variant.name, row, 0, "text") for row in range(ROWS))

    async def judge_all(self, generators: Sequence[str]) -> None:
        self.judged.append(list(generators))
        for name in generators:
            win = self._wins.get(name.replace("-", "_"), 0.5)
            value = None if win is None else 1 + win
            for row in range(ROWS):
                verdict = Verdict("j", "pairwise", name, "base", row, 0, value)
                await self._store.keep_verdict(verdict)

    def ablate(self, asked: AblationTask) -> Awaitable[Findings]:
        return ablate(asked, self._store, self.answer_with, self.judge_all)


async def test_all_variants_are_asked_for_at_once_and_self_moa_when_the_best_is_known(
    store: Store,
) -> None:
    fake = FakeRun(store, b=0.75)
    found = await fake.ablate(task("proposers", "aggregators", "members"))
    first = [
        "mix",
        *(f"mix-without-{name}" for name in "abc"),
        *(f"mix-with-{name}" for name in ("spare", "writer", "a-int4")),
        *(name for each in ("a", "b", "c", "spare") for name in (f"mix-by-{each}", each)),
        *("writer", "mix-by-a-int4", "a-int4"),
    ]
    assert fake.answered == [first, ["mix-self-b"]]
    assert fake.judged == fake.answered
    assert found.members is not None
    assert found.members.over_best.minus == "b"
    assert found.members.calls == {"mix": 4, "mix-self-b": 4, "a": 1, "b": 1, "c": 1, "writer": 1}
    assert found.skipped == ()


async def test_a_gain_is_the_mixture_with_it_minus_the_one_without(store: Store) -> None:
    fake = FakeRun(store, mix=0.6, mix_without_a=0.5, mix_with_spare=0.9)
    found = await fake.ablate(task("proposers", candidates=["spare", "b"]))
    gains = {gain.model: gain for gain in found.gains}
    assert {name: gain.added for name, gain in gains.items()} == {
        "a": False,
        "b": False,
        "c": False,
        "spare": True,
    }
    assert (gains["a"].contrast.what, gains["a"].contrast.minus) == ("mix", "mix-without-a")
    assert gains["a"].contrast.difference.value == pytest.approx(10)
    assert (gains["spare"].contrast.what, gains["spare"].contrast.minus) == ("mix-with-spare", "mix")
    assert gains["spare"].contrast.difference.value == pytest.approx(30)


async def test_a_source_is_read_from_the_names_of_weights(store: Store) -> None:
    names = {"a": "Llama-3", "b": "Llama-3.1", "c": "qwen2", "spare": "gemma-2", "writer": "x"}
    models = {
        name: {"engine": "openai_http", "base_url": "http://x/v1", "model": model}
        for name, model in names.items()
    }
    found = await FakeRun(store).ablate(task("proposers", recipe=recipe(models=models)))
    assert {gain.model: gain.source for gain in found.gains} == {
        "a": "same",
        "b": "same",
        "c": "different",
        "spare": "different",
        "writer": None,
    }


async def test_the_bases_own_aggregator_is_the_base_unless_it_has_fallbacks(store: Store) -> None:
    found = await FakeRun(store, mix=0.75).ablate(task("aggregators", candidates=["writer", "a"]))
    assert [(each.model, each.over_alone.what) for each in found.aggregators] == [
        ("writer", "mix"),
        ("a", "mix-by-a"),
    ]
    assert [each.over_base is None for each in found.aggregators] == [True, False]
    assert found.correlation is not None
    assert (found.correlation.candidates, found.correlation.pearson.value) == (2, None)


async def test_with_fallbacks_the_bases_own_aggregator_is_asked_without_them(store: Store) -> None:
    careful = recipe(aggregator={"model": "writer", "fallbacks": ["a"]})
    asked = task("aggregators", candidates=["writer"], recipe=careful)
    found = await FakeRun(store).ablate(asked)
    assert [each.over_alone.what for each in found.aggregators] == ["mix-by-writer"]


@pytest.mark.parametrize(
    ("proposers", "quantized", "unquantized"),
    [
        (["a", "b"], "mix-quantized", "mix"),
        (["a-int4", "b"], "mix", "mix-unquantized"),
        (["a", "a-int4"], "mix-quantized", "mix-unquantized"),
    ],
)
async def test_quantized_proposers_are_compared_with_unquantized_ones(
    store: Store, proposers: list[str], quantized: str, unquantized: str
) -> None:
    layers = [{"proposers": [{"model": name} for name in proposers]}]
    asked = task("quantized", recipe=recipe(layers=layers), unquantized={"a-int4": "a"})
    found = await FakeRun(store, a=0.7, a_int4=0.6).ablate(asked)
    assert [(each.what, each.minus) for each in found.quantized] == [
        (quantized, unquantized),
        ("a-int4", "a"),
    ]
    assert found.quantized[1].difference.value == pytest.approx(-10)
    assert (found.gains, found.aggregators, found.diversities) == ((), (), None)


async def test_what_a_recipe_does_not_have_is_left_out_and_listed(store: Store) -> None:
    models = {name: {"engine": "scripted"} for name in ("a", "writer")}
    small = {"small": {"engine": "scripted", "context_tokens": 256}}
    alone = recipe(models={**models, **small}, layers=[{"proposers": [{"model": "a"}]}])
    found = await FakeRun(store).ablate(task("proposers", "aggregators", recipe=alone))
    assert [gain.model for gain in found.gains] == ["writer"]
    assert [each.model for each in found.aggregators] == ["a", "writer"]
    reasons = "\n".join(found.skipped)
    assert "'mix-without-a': layer 1 has no other proposer" in reasons
    assert "'mix-with-small': " in reasons
    assert "'mix-by-small': " in reasons


async def test_without_verdicts_nobody_is_the_best(store: Store) -> None:
    fake = FakeRun(store, c=None)
    found = await fake.ablate(task("members"))
    assert len(fake.answered) == 1
    assert found.members is not None
    assert found.members.over_self_moa is None
    assert (found.members.over_best.n, found.members.over_best.missing) == (0, ROWS)
    assert found.skipped == ("Self-MoA: no row is judged for all members, so none is the best",)


async def test_a_member_may_be_the_baseline(store: Store) -> None:
    fake = FakeRun(store)
    asked = AblationTask(recipe(), "a", "j", ("members",))

    async def judge(generators: Sequence[str]) -> None:
        for name in generators:
            value = {"mix": 1.75, "b": 1.6}.get(name, 1.5)
            for row in range(ROWS if name != "a" else 0):
                await store.keep_verdict(Verdict("j", "pairwise", name, "a", row, 0, value))

    found = (await ablate(asked, store, fake.answer_with, judge)).members
    assert found is not None
    assert (found.over_best.minus, found.over_best.n) == ("b", ROWS)
    assert found.over_each[0].difference.value == pytest.approx(25)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: task("layers"), "parts: 'layers' is not allowed here; it takes one of quantized, "),
        (lambda: task("members", candidates=["z"]), "candidates: 'z' .* one of a, b, c, spare, writer"),
        (lambda: task("quantized", unquantized={"a": "z"}), "unquantized: 'z' .* one of a, b, c"),
        (lambda: task("quantized"), "unquantized: {} .* models that propose: a, b, c"),
        (
            lambda: task("quantized", unquantized={"spare": "writer"}),
            "unquantized: {'spare': 'writer'} .* models that propose: a, b, c",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(asked: Callable[[], AblationTask], message: str) -> None:
    with pytest.raises(AblationError, match=message):
        asked()


async def test_known_effects_are_recovered(tmp_path: Path) -> None:
    models, rows = InProcess(), 150
    found = await findings(tmp_path, models, rows, seed=0)
    checks = checked(found)
    # The intervals hold the truth in 95% of cases, so one or two of 27 may miss it.
    assert len(checks) == 27
    assert sum(not check.held for check in checks) <= 2
    for check in checks:
        assert check.found.low is not None
        assert check.found.high is not None
        if check.truth == 0:
            assert check.found.low <= 0 <= check.found.high
        if abs(check.truth) > 4:
            assert check.found.low * check.truth > 0
            assert check.found.high * check.truth > 0
    assert sum(check.truth == 0 for check in checks) == 3
    _no_call_was_made_twice(models, rows)
    _same_sources_are_similar(found)
    _is_shown_and_kept(found)


def _no_call_was_made_twice(models: InProcess, rows: int) -> None:
    # For each row, each model proposes once, which is also its answer alone, and aggregates the base's
    # proposals once. q60 aggregates ten mixtures, q70 writes two more samples for Self-MoA, and the
    # baseline only answers.
    expected = dict.fromkeys(CHARACTERS, 2) | {"q60": 11, "q70": 4, BASELINE: 1}
    assert {name: models.calls[name] / rows for name in expected} == expected


def _same_sources_are_similar(found: Findings) -> None:
    gains = {gain.model: gain for gain in found.gains}
    for model, like, similarity in (("q30", "q50", 0.6), ("q90", "q50", 0.6), ("q60-int4", "q60", 0.6)):
        assert dict([gains[model].nearest or ("", 0)]) == pytest.approx({like: similarity}, abs=0.05)
        assert gains[model].vendi_with == pytest.approx(3.6, abs=0.05)
    nearest = gains["q40"].nearest
    assert nearest is not None
    assert nearest[1] < 0.05
    assert gains["q40"].vendi_without == pytest.approx(3, abs=0.05)
    assert gains["q40"].vendi_with == pytest.approx(4, abs=0.05)


def _is_shown_and_kept(found: Findings) -> None:
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["correlation"]["candidates"] == 7
    console = Console(width=160)
    with console.capture() as shown:
        for table in tables(found):
            console.print(table)
    text = shown.get()
    assert "not comparable with the leaderboard" in text
    for each in ("best member, q70", "Self-MoA, known-effects-self-q70", "+q40", "Pearson -0.9"):
        assert each in text
