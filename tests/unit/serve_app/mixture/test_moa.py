"""The mixture as a whole: seeds, the order of references, usage, and closing an answer."""

import asyncio
import copy
import re
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest

from actors.engine import Delta, Message
from configs.errors import EngineError
from configs.schema import Sampling
from serve_app.mixture import moa
from serve_app.mixture.events import (
    AnswerDone,
    ProposalDone,
    ProposalDropped,
    StageDone,
    StageStarted,
    Started,
    Trimmed,
)
from tests.unit.scripts import Asked
from tests.unit.serve_app.mixture.conftest import Mixture

pytestmark = pytest.mark.virtual_time


def order(prompt: str) -> list[str]:
    """The models whose proposals stand in the prompt, in the order of the prompt."""
    return re.findall(r"from (\w)", prompt)


async def test_a_model_may_propose_in_every_layer_and_aggregate(mixture: Mixture) -> None:
    mixture.models.scripts["a"] = lambda asked: [f"answer {len(mixture.models.calls(asked.model))}"]
    outcome = await mixture.answer(mixture.recipe(["a"], ["a"], aggregator={"model": "a"}))
    first, second, last = mixture.models.calls("a")
    assert ("answer 1" in second.text, "answer 2" in last.text) == (True, True)
    assert "answer 1" not in last.text
    assert "answer" not in first.text
    assert outcome.text == "answer 3"


@pytest.mark.parametrize("style", ["system", "tail"])
async def test_messages_are_never_changed(mixture: Mixture, style: str) -> None:
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="word " * 300),
    ]
    before = copy.deepcopy(messages)
    mixture.models.scripts |= {"a": ["word " * 500], "y": ["from y"], "z": [EngineError("boom")]}
    recipe = mixture.recipe(
        ["a", "b"],
        ["a", "b"],
        references={"style": style},
        aggregator={"fallbacks": ["y"]},
        context_tokens={"a": 1400, "y": 1400},
    )
    outcome = await mixture.answer(recipe, messages)
    assert any(isinstance(event, Trimmed) for event in outcome.events)
    assert messages == before
    assert mixture.models.calls("a")[0].messages == before


async def test_the_answers_sampling_is_the_aggregators_alone(mixture: Mixture) -> None:
    asked_for = Sampling(temperature=0.1, max_tokens=7, stop=("x",))
    proposer = {"model": "a", "sampling": {"temperature": 1.1}}
    await mixture.answer(mixture.recipe([proposer]), sampling=asked_for)
    assert mixture.models.calls("a")[0].sampling == Sampling(temperature=1.1)
    assert mixture.models.calls("z")[0].sampling == asked_for


@pytest.mark.parametrize("seed", [None, 11])
@pytest.mark.parametrize("layer", [[{"model": "a", "samples": 3}], ["a", "a", "a"], ["a", "a"]])
async def test_one_model_gives_several_proposals_each_with_another_seed(
    mixture: Mixture, layer: list[str | dict[str, Any]], seed: int | None
) -> None:
    mixture.models.scripts["a"] = lambda asked: [f"drawn with {asked.sampling.seed}"]
    recipe = mixture.recipe(layer)
    [count] = recipe.samples
    outcome = await mixture.answer(recipe, seed=seed)
    seeds = [asked.sampling.seed for asked in mixture.models.calls("a")]
    assert None not in seeds
    assert len(set(seeds)) == count
    assert [mixture.models.calls("z")[0].text.count(f"with {s}\n") for s in seeds] == [1] * count
    assert [e.place for e in outcome.events if isinstance(e, ProposalDone)] == list(range(count))


async def test_samples_count_up_from_the_recipes_seed(mixture: Mixture) -> None:
    proposer = {"model": "a", "samples": 3, "sampling": {"seed": 7}}
    await mixture.answer(mixture.recipe([proposer, "b"]))
    assert [asked.sampling.seed for asked in mixture.models.calls("a")] == [7, 8, 9]
    assert mixture.models.calls("b")[0].sampling.seed is None


async def test_a_seed_fixes_every_call_and_the_order_of_references(mixture: Mixture) -> None:
    layer: list[str | dict[str, Any]] = [
        "a",
        {"model": "b", "sampling": {"seed": 7}},
        {"model": "c", "samples": 2},
    ]
    mixture.models.scripts["c"] = ["from c"]
    recipe = mixture.recipe(layer, layer)
    for _ in range(2):
        outcome = await mixture.answer(recipe, seed=5)
        assert outcome.summary.seed == 5
    half = len(mixture.models.asked) // 2
    first, second = mixture.models.asked[:half], mixture.models.asked[half:]
    assert half == 4 + 4 + 1
    assert [(a.model, a.messages, a.sampling) for a in first] == [
        (a.model, a.messages, a.sampling) for a in second
    ]
    seeds = [asked.sampling.seed for asked in first]
    assert seeds[-1] == 5
    assert len(set(seeds)) == half


def call_key(asked: Asked) -> tuple[str, str, Sampling]:
    """Everything that decides what an engine answers to a call."""
    return asked.model, asked.text, asked.sampling


@pytest.mark.parametrize(
    ("changed", "stay"),
    [
        (["b", "c", "b"], "bb c"),  # the first one is left out
        (["a", "b", "b"], "a bb"),
        (["a", "b", "c"], "a b c"),  # one sample less of a model that has two
        (["d", "a", "b", "c", "b"], "a bb c"),  # one more, in front
        (["a", "b", "c", "b", "b"], "a bb c"),  # one more sample of a model
        (["b", "c", "a", "b"], "a bb c"),
        (["a", {"model": "b", "samples": 2}, "c"], "a bb c"),
    ],
)
async def test_with_another_proposer_or_one_less_the_others_are_asked_the_very_same(
    mixture: Mixture, changed: list[str | dict[str, Any]], stay: str
) -> None:
    mixture.models.scripts |= {name: [f"from {name}"] for name in "cd"}
    calls = []
    for layer in (["a", "b", "c", "b"], changed):
        mixture.models.asked.clear()
        await mixture.answer(mixture.recipe(layer), seed=5)
        calls.append({call_key(asked) for asked in mixture.models.asked if asked.model != "z"})
    base, other = calls
    assert len(base) == 4  # the samples of b differ
    assert Counter(model for model, *_ in base & other) == Counter(stay.replace(" ", ""))


async def test_the_same_model_draws_anew_in_the_next_layer(mixture: Mixture) -> None:
    await mixture.answer(mixture.recipe(["a"], ["a"]), seed=5)
    first, second = (asked.sampling.seed for asked in mixture.models.calls("a"))
    assert first != second


async def test_every_order_of_references_occurs_and_stages_draw_apart(mixture: Mixture) -> None:
    mixture.models.scripts["c"] = ["from c"]
    recipe = mixture.recipe(["a", "b", "c"], ["a", "b", "c"])
    seen: Counter[str] = Counter()
    differ = 0
    for seed in range(60):
        mixture.models.asked.clear()
        await mixture.answer(recipe, seed=seed)
        [layer] = {tuple(order(asked.text)) for asked in mixture.models.asked[3:6]}
        answer = order(mixture.models.asked[6].text)
        seen["".join(answer)] += 1
        differ += list(layer) != answer
    assert len(seen) == 6
    assert max(seen.values()) < 30
    assert differ > 30


async def test_without_a_seed_the_order_is_drawn_and_its_seed_named(mixture: Mixture) -> None:
    drawn = [(await mixture.answer()).events[0] for _ in range(3)]
    seeds = {event.seed for event in drawn if isinstance(event, Started)}
    assert len(seeds) == 3


async def test_the_order_does_not_depend_on_which_proposal_comes_first(mixture: Mixture) -> None:
    orders = set()
    for delays in ((0.0, 9.0), (9.0, 0.0)):
        mixture.models.scripts |= {"a": [delays[0], "from a"], "b": [delays[1], "from b"]}
        await mixture.answer(seed=1)
        orders.add(tuple(order(mixture.models.calls("z")[-1].text)))
    assert len(orders) == 1


async def test_no_prompt_names_a_model(mixture: Mixture) -> None:
    names = ["qwen-x", "smol-y", "writer-z"]
    mixture.models.scripts |= dict.fromkeys(names, ("words",))
    recipe = mixture.recipe(names[:2], names[:2], aggregator={"model": names[2]})
    await mixture.answer(recipe)
    assert len(mixture.models.asked) == 5
    assert not [name for name in names for asked in mixture.models.asked if name in asked.text]


async def test_every_finished_call_is_counted_once(mixture: Mixture) -> None:
    mixture.models.scripts |= {
        "a": ["one two"],
        "b": [Delta(reasoning="hm")],  # finishes without a proposal
        "c": ["half a ", EngineError("boom")],
        "d": ["half a ", None],
        "y": ["one two three"],
        "z": [" "],
    }
    recipe = mixture.recipe(
        [{"model": "a", "samples": 2}, "b", "c", "d"], aggregator={"fallbacks": ["y"]}
    )
    summary = (await mixture.answer(recipe)).summary
    read = await mixture.models.count_tokens("y", mixture.models.calls("y")[0].messages)
    counted = [(c.model, c.role, c.prompt_tokens, c.completion_tokens) for c in summary.calls]
    assert sorted(counted) == [
        ("a", "proposer", 10, 2),
        ("a", "proposer", 10, 2),
        ("b", "proposer", 10, 0),
        ("y", "aggregator", read, 3),
        ("z", "aggregator", read, 0),
    ]
    assert Counter(m.model for m in summary.missing) == Counter("bcdz")


async def test_stages_are_timed(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [2.0, "from a"], "b": [3.0, "from b"], "z": [4.0, "x", 5.0, "y"]}
    outcome = await mixture.answer(mixture.recipe(["a", "b"], ["a"]))
    stages = outcome.summary.stages
    assert [(s.stage, s.at_s, s.seconds, s.first_s) for s in stages] == [
        ("layer 1", 0, 3, None),
        ("layer 2", 3, 2, None),
        ("aggregator", 5, 9, 4),
    ]
    assert [e for e in outcome.events if isinstance(e, StageDone)] == list(stages)
    assert [e.seconds for e in outcome.events if isinstance(e, ProposalDone)] == [2, 3, 2]
    begun = [e for e in outcome.events if isinstance(e, StageStarted)]
    assert [e.at_s for e in begun] == [0, 3, 5]
    assert [e.models for e in begun] == [("a", "b"), ("a",), ("z",)]


@pytest.mark.parametrize("seed", range(4))
async def test_stages_tell_the_order_in_which_prompts_have_the_references(
    mixture: Mixture, seed: int
) -> None:
    mixture.models.scripts["c"] = ["from c"]
    recipe = mixture.recipe(["a", "b", "c"], ["a", "b", "c"])
    outcome = await mixture.answer(recipe, seed=seed)
    first, *later = [e for e in outcome.events if isinstance(e, StageStarted)]
    assert first.references == ()
    assert [{r.layer for r in stage.references} for stage in later] == [{1}, {2}]
    texts = {(e.layer, e.place): e.text for e in outcome.events if isinstance(e, ProposalDone)}
    for stage, model in zip(later, ("a", "z"), strict=True):
        prompt = str(mixture.models.calls(model)[-1].messages)
        at = [prompt.index(texts[r.layer, r.place]) for r in stage.references]
        assert at == sorted(at)
        assert len(at) == 3
    assert [stage.references for stage in outcome.summary.stages[1:]] == [s.references for s in later]


async def test_a_proposal_tells_when_its_first_token_came(mixture: Mixture) -> None:
    mixture.models.scripts |= {"a": [2.0, " ", 3.0, "from a"], "b": [1.0, None]}
    outcome = await mixture.answer(mixture.recipe(["a", "b"], quorum=1))
    (done,) = [e for e in outcome.events if isinstance(e, ProposalDone)]
    assert (done.first_s, done.seconds) == (2, 5)
    (dropped,) = [e for e in outcome.events if isinstance(e, ProposalDropped)]
    assert dropped.seconds > 0


def slow_down(mixture: Mixture) -> None:
    """Make every call take seconds, and one more second when it is closed."""
    mixture.models.closing_s = 1
    mixture.models.scripts |= {
        "a": [1.0, "from ", 1.0, "a"],
        "b": [2.0, "from ", 3.0, "b"],
        "y": [1.0, "from ", 1.0, "y"],
        "z": [2.0, EngineError("boom")],
    }


def still_open(mixture: Mixture) -> list[str]:
    return [asked.model for asked in mixture.models.asked if not asked.ended]


async def test_closing_after_any_event_ends_every_call_and_waits_for_it(mixture: Mixture) -> None:
    slow_down(mixture)
    recipe = mixture.recipe(["a", "b"], ["a", "b"], aggregator={"fallbacks": ["y"]})
    total = len((await mixture.answer(recipe)).events)
    closed: Counter[str] = Counter()
    for stop in range(1, total):
        mixture.models.asked.clear()
        async with aclosing(moa.answer([], recipe, mixture.models)) as events:
            for _ in range(stop):
                event = await anext(events)
        assert not isinstance(event, AnswerDone)
        assert still_open(mixture) == []
        closed.update(a.model for a in mixture.models.asked if a.ended == "closed")
        asked = len(mixture.models.asked)
        await asyncio.sleep(50)
        assert len(mixture.models.asked) == asked
    assert set(closed) == {"a", "b", "y"}


@pytest.mark.parametrize("after_s", [n / 2 + 0.25 for n in range(28)])
async def test_cancelling_at_any_time_ends_every_call_and_waits_for_it(
    mixture: Mixture, after_s: float
) -> None:
    slow_down(mixture)
    recipe = mixture.recipe(["a", "b"], ["a", "b"], aggregator={"fallbacks": ["y"]})
    answering = asyncio.create_task(mixture.answer(recipe))
    await asyncio.sleep(after_s)
    assert not answering.done()
    assert still_open(mixture)
    answering.cancel()
    await asyncio.wait([answering])
    assert answering.cancelled()
    assert still_open(mixture) == []
