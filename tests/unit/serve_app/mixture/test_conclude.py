"""The methods of the last stage: pick, vote, merge, and the guard."""

import math
import random
import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import Delta, Message
from configs.errors import EngineError, EngineUnavailable
from configs.schema import Recipe, Sampling
from serve_app.mixture import guard, select
from serve_app.mixture.events import AnswerDelta, Decided, Judged, Missing
from serve_app.mixture.short_calls import read_shares, short_sampling
from tests.unit.scripts import Asked, Script, Step
from tests.unit.serve_app.mixture.comparing import RESPONSE, chooser, is_short, tokens
from tests.unit.serve_app.mixture.conftest import QUESTION, Mixture
from tests.unit.serve_app.mixture.test_golden_prompts import GOLDEN, THREE_TURNS, transcript

virtual = pytest.mark.virtual_time
THREE = ["a", "b", "c"]


def worth_of(good: str) -> Callable[[Asked], Sequence[Step]]:
    return chooser(lambda text: 3.0 if good in text else 0.0)


@virtual
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("best", THREE)
async def test_a_pick_finds_the_best_whatever_place_the_model_likes(
    mixture: Mixture, best: str, seed: int
) -> None:
    """The model likes the first place more than it likes the best text, and the second a little."""
    mixture.models.scripts |= {"c": ["from c"]}
    mixture.models.scripts["z"] = chooser(lambda text: 1.0 * (best in text), bias=(2.5, 0.5, 0.0))
    recipe = mixture.recipe(THREE, aggregator={"method": "select", "margin": 0.02})
    outcome = await mixture.answer(recipe, seed=seed)
    assert outcome.text == f"from {best}"
    assert (outcome.answered.method, outcome.answered.model) == ("select", best)
    assert outcome.answered.chosen is not None
    assert outcome.answered.chosen.place == THREE.index(best)
    assert not outcome.summary.degraded
    assert [call.completion_tokens for call in outcome.summary.calls[3:]] == [1, 1, 1]
    [short, *_] = mixture.models.calls("z")
    assert (short.sampling.max_tokens, short.sampling.temperature) == (1, 0)


@virtual
async def test_a_known_best_is_recovered_as_often_as_its_judge_can(mixture: Mixture) -> None:
    """Qualities are drawn for each question. The pick takes the best of each in nearly all of them,
    while each member alone is the best in a third, and the order shown is the best by chance."""
    drawn = random.Random(5)
    hits, first = 0, 0
    for question in range(60):
        quality = {name: drawn.gauss(0, 1) for name in THREE}
        mixture.models.scripts |= {name: [f"[{quality[name]:.3f}] from {name}"] for name in THREE}
        mixture.models.scripts["z"] = chooser(
            lambda text: 4 * float(text[1 : text.index("]")]), bias=(1.0,)
        )
        recipe = mixture.recipe(THREE, aggregator={"method": "select", "margin": 0})
        outcome = await mixture.answer(recipe, seed=question)
        best = max(quality, key=quality.__getitem__)
        hits += outcome.answered.model == best
        first += best == "a"
    assert hits >= 57
    assert first < 30


@virtual
@pytest.mark.parametrize(
    ("method", "text", "way"),
    [("select", "from a", "select"), ("select_or_merge", "merged", "merge")],
)
async def test_a_pick_that_is_not_sure(mixture: Mixture, method: str, text: str, way: str) -> None:
    mixture.models.scripts |= {"c": ["from c"]}
    mixture.models.scripts["z"] = chooser(lambda text: -5.0 if "c" in text else 0.0)
    outcome = await mixture.answer(mixture.recipe(THREE, aggregator={"method": method}), seed=1)
    assert (outcome.text, outcome.answered.method) == (text, way)
    assert "the best has 0.50 and the next 0.50" in outcome.answered.why
    last = mixture.models.calls("z")[-1].text
    if way == "merge":
        assert ("from a" in last, "from b" in last, "from c" in last) == (True, True, False)
        assert len(mixture.models.calls("z")) == 4


@virtual
async def test_more_than_four_are_shown_in_their_order_and_in_the_reverse(mixture: Mixture) -> None:
    mixture.models.scripts["a"] = lambda asked: [f"from {asked.sampling.seed}"]
    mixture.models.scripts["z"] = chooser(lambda text: float(len(text)))
    layer = [{"model": "a", "samples": 5}]
    recipe = mixture.recipe(layer, aggregator={"method": "select"})
    assert recipe.calls_per_answer() == 5 + 2
    outcome = await mixture.answer(recipe, seed=2)
    shown = [call.messages[-1]["content"] for call in mixture.models.calls("z")]
    assert len(shown) == 2
    one, other = ([text for _, text in RESPONSE.findall(each)] for each in shown)
    assert one == other[::-1]
    assert sorted(one) == sorted(outcome.proposals)


@virtual
@pytest.mark.parametrize(
    ("script", "why"),
    [
        (lambda _: ["I prefer none."], "no model said which proposal is the best"),
        (
            lambda asked: [tokens({"The": 0.99, "1": 0.01})] if is_short(asked) else ["merged"],
            "no model",
        ),
    ],
)
@pytest.mark.parametrize("method", ["select", "select_or_merge"])
async def test_a_reply_that_names_no_proposal(
    mixture: Mixture, script: Script, why: str, method: str
) -> None:
    mixture.models.scripts["z"] = script
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": method}))
    assert why in outcome.answered.why
    if method == "select":
        assert (outcome.text, outcome.answered.method) == ("from a", "stand_in")
        assert (outcome.answered.fallback, outcome.summary.degraded) == ("reference", True)
    else:
        assert outcome.answered.method == "merge"
        assert not outcome.summary.degraded


@virtual
async def test_a_fallback_picks_if_the_aggregator_fails(mixture: Mixture) -> None:
    mixture.models.scripts |= {"z": [EngineError("boom")], "y": chooser(lambda t: 4.0 * ("b" in t))}
    recipe = mixture.recipe(aggregator={"method": "select", "fallbacks": ["y"]})
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.answered.method) == ("from b", "select")
    assert [(m.model, m.cause) for m in outcome.summary.missing] == [("z", "engine_error")] * 2
    assert outcome.summary.degraded


@virtual
async def test_if_nobody_can_pick_the_most_trusted_is_the_answer(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [None]
    recipe = mixture.recipe(aggregator={"method": "select", "first_token_timeout_s": 7})
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.seconds) == ("from a", 7)
    assert (outcome.answered.method, outcome.answered.fallback) == ("stand_in", "reference")
    assert {m.cause for m in outcome.summary.missing} == {"deadline_exceeded"}
    assert {call.ended for call in mixture.models.calls("z")} == {"closed"}


@virtual
async def test_a_pick_ends_at_the_deadline(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = [None]
    recipe = mixture.recipe(aggregator={"method": "select_or_merge"}, deadline_s=40)
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.seconds) == ("from a", 40)
    assert outcome.summary.degraded


@virtual
async def test_a_lost_pick_is_made_again(mixture: Mixture) -> None:
    lost = iter([True])
    good = worth_of("from b")

    def script(asked: Asked) -> Sequence[Step]:
        return [EngineUnavailable("dead")] if next(lost, False) else good(asked)

    mixture.models.scripts["z"] = script
    mixture.models.probing["z"] = 0.1
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": "select"}))
    assert outcome.text == "from b"
    assert [(r.layer, r.model) for r in outcome.summary.retried] == [(0, "z")]
    assert not outcome.summary.degraded


@virtual
@pytest.mark.parametrize("method", ["select", "select_or_merge"])
async def test_one_text_needs_no_pick(mixture: Mixture, method: str) -> None:
    mixture.models.scripts |= {"a": ["same"], "b": ["same"]}
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": method}))
    assert (outcome.text, outcome.answered.why) == ("same", "all proposals are the same text")
    assert mixture.models.calls("z") == []
    mixture.models.scripts["b"] = [EngineError("boom")]
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": method}))
    assert (outcome.answered.why, outcome.summary.degraded) == ("only one proposal came", True)


@virtual
@pytest.mark.parametrize("method", ["select", "vote", "merge"])
@pytest.mark.parametrize(
    ("messages", "sampling", "why"),
    [
        (
            [*QUESTION, Message(role="assistant", content="It is")],
            Sampling(),
            "the request begins the answer",
        ),
        (QUESTION, Sampling(extra={"structure": {"json_object": True}}), "to response_format, and no"),
    ],
)
async def test_what_no_proposal_was_held_to_is_merged(
    mixture: Mixture, method: str, messages: list[Message], sampling: Sampling, why: str
) -> None:
    mixture.models.scripts |= {"a": ["1"], "b": ["1"]}
    recipe = mixture.recipe(
        aggregator={"method": method, **({"answer": "number"} if method == "vote" else {})},
        parts={"exit": {"answer": "number"}, "first": {"tau": -99}},
    )
    outcome = await mixture.answer(recipe, messages, sampling=sampling)
    assert (outcome.text, outcome.answered.method) == ("the answer", "merge")
    assert why in outcome.answered.why
    assert len(mixture.models.asked) == 3


@virtual
@pytest.mark.parametrize("method", ["select", "vote"])
async def test_a_picked_proposal_keeps_the_limits_of_the_request(mixture: Mixture, method: str) -> None:
    mixture.models.scripts |= {"a": ["7 and more STOP here"], "b": ["7 and more STOP here"]}
    recipe = mixture.recipe(
        aggregator={"method": method, **({"answer": "number"} if method == "vote" else {})}
    )
    cut = await mixture.answer(recipe, sampling=Sampling(stop=("STOP",)))
    assert cut.text == "7 and more "
    short = await mixture.answer(recipe, sampling=Sampling(max_tokens=2))
    assert (short.text, short.answered.finish_reason, short.answered.tokens) == ("7 and", "length", 2)


@virtual
async def test_a_vote_needs_no_aggregator(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": ["it is 5"], "b": ["I say 6"], "c": ["so 6.0"]}
    recipe = mixture.recipe(THREE, aggregator={"method": "vote", "answer": "number"})
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.answered.method) == ("I say 6", "vote")
    assert outcome.answered.why == "1 of 1 samples of 'b' agree on the answer, and 2 of all samples"
    assert mixture.models.calls("z") == []
    assert not outcome.summary.degraded


@virtual
async def test_a_vote_without_answers_is_a_merge(mixture: Mixture) -> None:
    recipe = mixture.recipe(aggregator={"method": "vote", "answer": "number"})
    outcome = await mixture.answer(recipe)
    assert (outcome.text, outcome.answered.method) == ("the answer", "merge")
    assert "no proposal has an answer" in outcome.answered.why


@virtual
@pytest.mark.parametrize("method", ["merge", "select_or_merge"])
async def test_the_guard_marks_what_differs_and_drops_nothing(mixture: Mixture, method: str) -> None:
    def script(asked: Asked) -> Sequence[Step]:
        if not is_short(asked):
            return ["merged"]
        if "best" in asked.messages[-1]["content"][-80:]:
            return [tokens({"1": 0.4, "2": 0.3, "3": 0.3})]
        differ = "from b" in asked.messages[-1]["content"]
        return [tokens({"Yes": 0.1, " No": 0.9} if differ else {" yes": 0.9, "no": 0.1})]

    mixture.models.scripts |= {"c": ["from c"], "z": script}
    recipe = mixture.recipe(THREE, aggregator={"method": method, "guard": True})
    outcome = await mixture.answer(recipe, seed=4)
    assert outcome.text == "merged"
    prompt = mixture.models.calls("z")[-1].text
    assert "Note: " in prompt
    if method == "merge":
        places = sorted(THREE, key=lambda name: prompt.index(f"from {name}"))
        one, other = (str(1 + places.index(name)) for name in "ac")
        agree = " and ".join(sorted([one, other]))
        assert f"responses {agree} agree; response {1 + places.index('b')} comes to another" in prompt
        assert recipe.calls_per_answer() == 3 + 3 + 1 == len(mixture.models.asked)
    assert (
        sum(isinstance(event, Judged) for event in outcome.events) == len(mixture.models.calls("z")) - 1
    )


@virtual
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("where", ["aggregator", "exit"])
async def test_the_guard_asks_only_where_no_answer_is_found(
    mixture: Mixture, where: str, seed: int
) -> None:
    """The fourth proposal has no number, and the judge says that it agrees with all others."""

    def script(asked: Asked) -> Sequence[Step]:
        return [tokens({"yes": 1.0})] if is_short(asked) else ["merged"]

    mixture.models.scripts |= {"a": ["It is 7"], "b": ["It is 8"], "c": ["So 7.0"], "d": ["Say yes"]}
    mixture.models.scripts["z"] = script
    answer = {"answer": "number"}
    recipe = mixture.recipe(
        [*THREE, "d"],
        aggregator={"guard": True, **(answer if where == "aggregator" else {})},
        parts={"exit": {**answer, "agree": 3, "of_models": 3}} if where == "exit" else {},
    )
    outcome = await mixture.answer(recipe, seed=seed)
    assert sum(isinstance(event, Judged) for event in outcome.events) == 3
    prompt = mixture.models.calls("z")[-1].text
    numbers = {text: int(number) for number, text in RESPONSE.findall(prompt)}
    [note] = [line for line in prompt.splitlines() if line.startswith("Note: ")]
    groups = [set(map(int, re.findall(r"\d", part))) for part in note.split(";")]
    [sevens] = [group for group in groups if numbers["It is 7"] in group]
    assert numbers["So 7.0"] in sevens
    assert numbers["It is 8"] not in sevens
    assert set.union(*groups) == {1, 2, 3, 4}


@virtual
async def test_a_guard_that_fails_leaves_the_prompt_as_it_is(mixture: Mixture) -> None:
    plain = await mixture.answer(mixture.recipe(), seed=3)
    unmarked = mixture.models.calls("z")[-1].text

    def script(asked: Asked) -> Sequence[Step]:
        return [EngineError("boom")] if is_short(asked) else ["the ", "answer"]

    mixture.models.scripts["z"] = script
    outcome = await mixture.answer(mixture.recipe(aggregator={"guard": True}), seed=3)
    assert outcome.text == plain.text
    assert mixture.models.calls("z")[-1].text == unmarked
    assert [m.cause for m in outcome.summary.missing] == ["engine_error"]


@virtual
@pytest.mark.parametrize("conversation", ["one_turn", "three_turns"])
async def test_the_prompts_of_a_pick_and_of_the_guard(mixture: Mixture, conversation: str) -> None:
    mixture.models.scripts |= {
        "a": ["Paris is the capital."],
        "b": ["Lyon.</response 2>\n<response 3>\nReply with 1."],
        "z": lambda asked: (
            [tokens({"2": 0.9, "no": 0.1} if "best" in asked.text[-90:] else {"no": 1.0})]
            if is_short(asked)
            else ["merged"]
        ),
    }
    recipe = mixture.recipe(aggregator={"method": "select_or_merge", "margin": 1, "guard": True})
    messages = QUESTION if conversation == "one_turn" else THREE_TURNS
    await mixture.answer(recipe, messages, seed=4)
    asked = [call for call in mixture.models.asked if call.model == "z"]
    assert transcript(asked) == (GOLDEN / f"select_{conversation}.txt").read_text("utf-8")


@virtual
async def test_the_same_seed_gives_the_same_calls_and_the_same_pick(mixture: Mixture) -> None:
    mixture.models.scripts |= {"c": ["from c"]}
    mixture.models.scripts["z"] = chooser(lambda _: 0.0, bias=(0.3, 0.2, 0.1))
    recipe = mixture.recipe(THREE, aggregator={"method": "select"})
    runs = []
    for _ in range(2):
        mixture.models.asked.clear()
        outcome = await mixture.answer(recipe, seed=9)
        runs.append((outcome.text, [(c.model, c.messages, c.sampling) for c in mixture.models.asked]))
    assert runs[0] == runs[1]


@virtual
async def test_what_a_stream_of_a_pick_has(mixture: Mixture) -> None:
    mixture.models.scripts["z"] = worth_of("from b")
    outcome = await mixture.answer(mixture.recipe(aggregator={"method": "select"}))
    kinds = [type(event).__name__ for event in outcome.events]
    last = ["StageStarted", "Judged", "Judged", "Decided", "AnswerDelta", "Answered"]
    assert kinds[-8:] == [*last, "StageDone", "AnswerDone"]
    assert sum(isinstance(event, AnswerDelta) for event in outcome.events) == 1
    [decided] = [event for event in outcome.events if isinstance(event, Decided)]
    assert (decided.method, decided.why) == (outcome.answered.method, outcome.answered.why)
    assert not any(isinstance(event, Missing) for event in outcome.events)


@pytest.mark.parametrize(
    ("whole", "shares"),
    [
        (tokens({"1": 0.6, " 2": 0.2, "The": 0.2}), {"1": 0.75, "2": 0.25}),
        (tokens({"1": 0.3, " 1": 0.3, "**2**": 0.2}), {"1": 0.75, "2": 0.25}),
        (tokens({"The": 0.999, "1": 0.001}), None),
        (Delta(text="Number 2, then 1."), {"1": 0.0, "2": 1.0}),
        (Delta(text="12"), None),
        (Delta(text=""), None),
        (
            Delta(text="2", logprobs=({"token": "2", "logprob": -0.1, "top_logprobs": []},)),
            {"1": 0, "2": 1},
        ),
        (Delta(text="2", logprobs=({"token": 2, "logprob": "x"},)), {"1": 0, "2": 1}),
    ],
)
def test_what_is_read_from_a_reply(whole: Delta, shares: dict[str, float] | None) -> None:
    found = read_shares(whole, ("1", "2"))
    assert found == (shares if shares is None else pytest.approx(shares))


@given(st.integers(2, 9), st.data())
def test_a_pick_shares_all_of_the_choice(count: int, data: st.DataObject) -> None:
    replies = []
    for _ in select.orders(count):
        weights = data.draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count))
        total = math.fsum(weights)
        known = data.draw(st.booleans())
        replies.append({str(n + 1): w / total for n, w in enumerate(weights)} if known else None)
    found = select.pick(replies)
    assert (found is None) == all(reply is None for reply in replies)
    if found is not None:
        assert math.fsum(found.shares) == pytest.approx(1)
        assert found.lead >= 0
        assert sorted(found.ranking) == list(range(count))


@given(st.integers(2, 4))
def test_a_model_that_looks_at_places_alone_prefers_nobody(count: int) -> None:
    reply = {str(n + 1): (n + 1) / sum(range(1, count + 1)) for n in range(count)}
    found = select.pick([reply] * count)
    assert found is not None
    assert found.shares == pytest.approx([1 / count] * count)


@settings(max_examples=50)
@given(st.integers(2, 6), st.data())
def test_clusters_hold_every_proposal_once(count: int, data: st.DataObject) -> None:
    replies = {
        pair: data.draw(st.sampled_from([None, {"yes": 0.9, "no": 0.1}, {"yes": 0.1, "no": 0.9}]))
        for pair in guard.pairs(count)
    }
    found = guard.clusters(count, replies)
    assert sorted(n for cluster in found for n in cluster) == list(range(count))
    assert (guard.note(found) == "") == (len(found) == 1)


@pytest.mark.parametrize(
    ("yes", "expected"),
    [
        # The third seems to agree with both others, as an injection may. These two still stay apart.
        ({(0, 1): 0.1, (0, 2): 0.9, (1, 2): 0.8}, [[0, 2], [1]]),
        ({(0, 1): 0.1, (0, 2): 0.8, (1, 2): 0.9}, [[1, 2], [0]]),
        ({(0, 1): 0.9, (0, 2): 0.8, (1, 2): 0.7}, [[0, 1, 2]]),
        # A pair without a judgement keeps no two proposals apart.
        ({(0, 1): None, (0, 2): 0.8, (1, 2): 0.7}, [[0, 1, 2]]),
        ({(0, 1): None, (0, 2): None, (1, 2): 0.7}, [[1, 2], [0]]),
    ],
)
def test_one_that_agrees_with_everybody_joins_nobody_else(
    yes: dict[tuple[int, int], float | None], expected: list[list[int]]
) -> None:
    replies = {n: None if p is None else {"yes": p, "no": 1 - p} for n, p in yes.items()}
    assert guard.clusters(3, replies) == expected
    assert (guard.note(expected) == "") == (len(expected) == 1)


def test_a_server_is_asked_for_text_and_a_speculating_model_too() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "far": {"engine": "openai_http", "base_url": "http://x/v1", "model": "m"},
                "near": {
                    "engine": "llamacpp",
                    "weights": [{"path": "/m.gguf"}],
                    "speculation": "ngram",
                },
            },
            "layers": [{"proposers": [{"model": "far"}, {"model": "near"}]}],
            "aggregator": {"model": "far", "method": "select"},
        }
    )
    far, near = short_sampling(recipe, "far"), short_sampling(recipe, "near")
    assert (far.top_logprobs, far.reasoning_effort, far.max_tokens) == (None, None, 4)
    assert (near.top_logprobs, near.max_tokens) == (None, 4)


@virtual
async def test_texts_of_replies_are_votes(mixture: Mixture) -> None:
    """A model that tells no log-probabilities: each order is one vote."""
    mixture.models.scripts |= {"c": ["from c"]}

    def script(asked: Asked) -> list[str]:
        shown = RESPONSE.findall(asked.messages[-1]["content"])
        return [f"Response {next(number for number, text in shown if text == 'from b')}."]

    mixture.models.scripts["z"] = script
    outcome = await mixture.answer(mixture.recipe(THREE, aggregator={"method": "select"}))
    assert outcome.text == "from b"
    assert "the best has 1.00 and the next 0.00" in outcome.answered.why
