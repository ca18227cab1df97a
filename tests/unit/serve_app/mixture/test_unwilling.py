"""Refusals: when they do not count beside answers, and when they count."""

import pytest

from configs.errors import EngineError
from serve_app.mixture.unwilling import is_refusal
from tests.unit.serve_app.mixture.comparing import chooser
from tests.unit.serve_app.mixture.conftest import Mixture

REFUSAL = "I apologize, but I cannot provide information on that topic."
THREE = ["a", "b", "c"]
virtual = pytest.mark.virtual_time


@pytest.mark.parametrize(
    "text",
    [
        REFUSAL,
        "I'm sorry, but I can't assist with that request.",
        "Sorry, I can’t help you with this.",
        "I am unable to answer that, as I am an AI.",
        "As a language model I'm not able to discuss this topic.",
        "I must decline. Please ask about something else.",
        "Es tut mir leid, aber dabei kann ich dir nicht helfen.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Je suis désolé, je ne peux pas vous aider.",
        "Извините, я не могу ответить на этот вопрос.",
        "对不起，我无法回答这个问题。",
        "申し訳ありませんが、お手伝いできません。",
    ],
    ids=ascii,
)
def test_a_refusal_is_known(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "",
        "I'm sorry to hear that. Call the landlord and ask for a date.",
        "You cannot help it: water expands when it freezes.",
        "Birds can't provide milk.",
        "No, you can't answer for someone else.",
        "Das kann nicht sein: 7 ist eine Primzahl.",
        "Das Mittel kann bei Fieber nicht helfen.",
        "The company is unable to provide a refund after 30 days.",
        "Eine Bank darf darauf nicht antworten.",
        "该公司不能提供退款。",
        "I can't say for sure, but it is probably 42.",
        "If a shop tells you 'I cannot help you', write to the maker. " * 8,
        f"{'It depends on the country, and on the year in which the contract was made. ' * 2}{REFUSAL}",
    ],
    ids=range(14),
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@virtual
@pytest.mark.parametrize("refusing", THREE)
async def test_an_unsure_pick_does_not_take_a_refusal(mixture: Mixture, refusing: str) -> None:
    """The judge prefers the refusal, but by less than the margin."""
    mixture.models.scripts |= {"c": ["from c"]} | {refusing: [REFUSAL]}
    mixture.models.scripts["z"] = chooser(lambda text: 0.1 * (text == REFUSAL))
    outcome = await mixture.answer(mixture.recipe(THREE, aggregator={"method": "select"}))
    first = "from b" if refusing == "a" else "from a"
    assert (outcome.text, outcome.answered.method) == (first, "select")
    assert "the more trusted of the best two that do not refuse" in outcome.answered.why
    assert not outcome.summary.degraded


@virtual
async def test_an_unsure_pick_merges_what_answers(mixture: Mixture) -> None:
    mixture.models.scripts |= {"b": [REFUSAL], "c": ["from c"]}
    mixture.models.scripts["z"] = chooser(lambda text: 0.1 * (text == REFUSAL))
    await mixture.answer(mixture.recipe(THREE, aggregator={"method": "select_or_merge"}))
    prompt = mixture.models.calls("z")[-1].text
    assert (REFUSAL in prompt, "from a" in prompt, "from c" in prompt) == (False, True, True)


@virtual
async def test_a_judge_that_is_sure_may_pick_a_refusal(mixture: Mixture) -> None:
    mixture.models.scripts |= {"b": [REFUSAL], "c": ["from c"]}
    mixture.models.scripts["z"] = chooser(lambda text: 3.0 * (text == REFUSAL))
    outcome = await mixture.answer(mixture.recipe(THREE, aggregator={"method": "select"}))
    assert outcome.text == REFUSAL


@virtual
@pytest.mark.parametrize("method", ["select", "merge"])
async def test_where_half_refuse_a_refusal_counts(mixture: Mixture, method: str) -> None:
    """Honest models refuse a harmful request."""
    mixture.models.scripts |= {"a": [REFUSAL], "b": ["Gladly, here is how."]}
    mixture.models.scripts["z"] = [EngineError("boom")]
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": method}))
    assert outcome.text == REFUSAL
    mixture.models.scripts["z"] = chooser(lambda _: 0.0, merged="merged")
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": method}))
    assert outcome.text == (REFUSAL if method == "select" else "merged")


@virtual
@pytest.mark.parametrize("method", ["select", "merge"])
async def test_a_refusal_does_not_stand_in_for_answers(mixture: Mixture, method: str) -> None:
    mixture.models.scripts |= {"a": [REFUSAL], "c": ["from c"], "z": [EngineError("boom")]}
    outcome = await mixture.answer(mixture.recipe(THREE, aggregator={"method": method}))
    assert (outcome.text, outcome.answered.method) == ("from b", "stand_in")


@virtual
async def test_a_merge_reads_refusals_as_before(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [REFUSAL], "c": ["from c"]}
    await mixture.answer(mixture.recipe(THREE))
    prompt = mixture.models.calls("z")[-1].text
    assert all(text in prompt for text in (REFUSAL, "from b", "from c"))
