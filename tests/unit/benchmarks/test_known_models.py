"""Models with known effects: what is claimed of them, and that a server gives the same."""

import statistics
from collections.abc import Sequence

import pytest

from actors.engine import Delta, Message, Share, collect_answer
from actors.engines import create
from benchmarks.quality.known_models import (
    BASELINE,
    CHARACTERS,
    JUDGE,
    MARK,
    InProcess,
    questions,
    recipe,
    reply,
    serving,
    true_win_rate,
    verdict,
)
from configs.schema import Sampling
from jobs import variants
from jobs.judges.pairwise import SAMPLING, first_wins, load_prompt
from jobs.variants import Variant
from serve_app.mixture.references import with_references

ASKED = [Message(role="user", content="Question 1")]
SAMPLES = 2000


def quality(text: str) -> float:
    found = MARK.search(text)
    assert found is not None
    return float(found[1])


def preference(first: str, second: str) -> float:
    """How likely the judge is to prefer the first text."""
    filled = load_prompt().fill(instruction="Question 1", output_1=first, output_2=second)
    top = verdict(filled)[0]["top_logprobs"]
    return first_wins(top) or 0.0


def written(variant: Variant, seed: int) -> str:
    """What the variant answers, by the models' own replies."""
    if variant.model is not None:
        return reply(variant.model, ASKED, seed)
    settings, (layer,) = variant.recipe.references, variant.recipe.layers
    models = [p.model for p in layer.proposers for _ in range(p.samples)]
    proposals = [reply(model, ASKED, 100 * seed + n) for n, model in enumerate(models)]
    return reply(variant.recipe.aggregator.model, with_references(ASKED, proposals, settings), seed)


@pytest.mark.parametrize(
    "variant",
    [
        variants.mixture(recipe()),
        variants.without(recipe(), "q70"),
        variants.with_also(recipe(), "q30"),
        variants.aggregated_by(recipe(), "q90"),
        variants.self_moa(recipe(), "q70"),
        variants.alone(recipe(), "q90"),
    ],
    ids=lambda variant: variant.name,
)
def test_the_true_win_rate_is_what_many_answers_come_to(variant: Variant) -> None:
    wins = [
        100 * preference(written(variant, seed), reply(BASELINE, ASKED, seed))
        for seed in range(SAMPLES)
    ]
    error = statistics.stdev(wins) / SAMPLES**0.5
    assert statistics.fmean(wins) == pytest.approx(true_win_rate(variant), abs=4 * error)


def test_models_that_do_all_alike_differ_in_nothing() -> None:
    twin = variants.with_replacements(recipe(), {"q60": "q60-int4"})
    assert true_win_rate(twin) == true_win_rate(variants.mixture(recipe()))


def test_a_reply_is_settled_by_model_seed_and_prompt() -> None:
    assert reply("q50", ASKED, 1) == reply("q50", ASKED, 1)
    others = [reply("q50", ASKED, 2), reply("q60", ASKED, 1), reply("q50", [*ASKED, *ASKED], 1)]
    assert len({reply("q50", ASKED, 1), *others}) == 4


def test_the_judge_is_the_surer_the_better_a_text_is() -> None:
    good, fair, bad = (f"[quality {q:.4f}, source a] words" for q in (2.0, 0.0, -2.0))
    assert preference(fair, fair) == pytest.approx(0.5)
    assert preference(good, fair) == pytest.approx(1 - preference(fair, good))
    assert preference(good, bad) > preference(good, fair) > 0.5
    assert preference("no mark", "none either") == 0.5  # as in the judge's trial call


async def test_the_server_says_what_the_models_say() -> None:
    models = InProcess()
    filled = load_prompt().fill(instruction="x", output_1=reply("q90", ASKED, 1), output_2="No.")
    proposals = [reply(model, ASKED, 1) for model in ("q50", "q60")]
    prompts: list[tuple[str, Sequence[Message], Sampling]] = [
        ("q50", ASKED, Sampling(seed=7)),
        ("q60", with_references(ASKED, proposals, recipe().references), Sampling(seed=7)),
        (JUDGE, filled, SAMPLING),
    ]
    async with serving(models) as url:
        remote = [await _asked(url, *each) for each in prompts]
    local = [await InProcess().complete(*each) for each in prompts]
    assert [(r.text, r.finish_reason, r.logprobs) for r in remote] == [
        (x.text, x.finish_reason, x.logprobs) for x in local
    ]
    assert [r.completion_tokens for r in remote] == [len(x.text.split()) for x in local]
    assert models.calls == {"q50": 1, "q60": 1, JUDGE: 1}


async def _asked(url: str, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
    engine = create(model, recipe(url).models[model], Share())
    await engine.start()
    try:
        return await collect_answer(engine.stream(messages, sampling))
    finally:
        await engine.stop()


def test_every_model_is_in_the_recipe_and_every_question_is_another() -> None:
    assert {*CHARACTERS, JUDGE} == set(recipe().models)
    assert len({row.turns for row in questions(50)}) == 50
