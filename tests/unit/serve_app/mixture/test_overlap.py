"""Warm-ups of the aggregator while the last layer writes: what is warmed, when, and that each ends."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engine import NONE, Message
from actors.replica import Replica
from configs.errors import EngineUnavailable
from configs.schema import LlamaCppModel, Recipe, Sampling
from serve_app.mixture import moa
from serve_app.mixture.events import (
    Call,
    Event,
    Missing,
    ProposalDelta,
    ProposalDone,
    ProposalDropped,
    Retried,
)
from serve_app.mixture.overlap import CHARACTERS, GROWTH_TOKENS, ReadyReferences, why_no_overlap
from serve_app.mixture.reference_order import ReferenceOrder
from tests.unit.scripts import FakeModels
from tests.unit.serve_app.conftest import Scripted
from tests.unit.serve_app.mixture.conftest import QUESTION, Mixture

STEP = GROWTH_TOKENS * CHARACTERS


@dataclass
class Warmed(FakeModels):
    """Scripted models that take warm-ups."""

    warm_s: float = 0.0
    """Seconds that a warm-up takes."""
    is_busy: bool = False
    error: Exception | None = None
    warmed: list[tuple[float, str, list[Message]]] = field(default_factory=list)
    """When each warm-up began, its model, and its messages."""
    at_once: int = 0
    most_at_once: int = 0

    async def warm(
        self, model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int | None:
        self.warmed.append((asyncio.get_running_loop().time(), model, list(messages)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.warm_s)
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        return None if self.is_busy else 1


@pytest.fixture
def warmed() -> Warmed:
    return Warmed()


@pytest.fixture
def mix(warmed: Warmed) -> Mixture:
    """`a` ends after 1 s, `b` after 2 s and `c` after 3 s; `z` aggregates."""
    mixture = Mixture(warmed)
    for seconds, name in enumerate("abc", 1):
        warmed.scripts[name] = [float(seconds), f"from {name}"]
    return mixture


def common(one: str, other: str) -> str:
    """The beginning that two texts have in common."""
    same = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if same is None else same]


def text(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages)


def recipe_of(order: str = "seeded", samples: int = 4, **aggregator: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {name: {"engine": "scripted"} for name in "abz"},
            "layers": [{"proposers": [{"model": "a", "samples": samples}]}],
            "aggregator": {"model": "z", **aggregator},
            "references": {"order": order},
        }
    )


def done(place: int, written: str, seconds: float = 1.0) -> ProposalDone:
    return ProposalDone(1, place, "a", written, seconds, Call("a", "proposer", 1, 1, 0.1))


def dropped(place: int) -> ProposalDropped:
    return ProposalDropped(place, Missing(1, "a", "late", "was late"))


def ready(order: str = "seeded", count: int = 3, most: int = 10_000) -> ReadyReferences:
    reading = ReferenceOrder(recipe_of(order), count, seed=1)
    return ReadyReferences(reading, 2, ["a"] * count, most)


def places(count: int = 3) -> list[int]:
    return ReferenceOrder(recipe_of(), count, seed=1).places(2)


@st.composite
def layers(draw: st.DrawFn) -> list[Event]:
    """The events of a layer, in a possible order."""
    count = draw(st.integers(1, 5))
    rest: list[list[Event]] = []
    for place in range(count):
        pieces = draw(st.lists(st.integers(1, 3 * STEP), max_size=4))
        whole = [f"{place}" * n for n in pieces]
        events: list[Event] = [ProposalDelta(1, place, "a", piece) for piece in whole]
        ends_well = bool(whole) and draw(st.booleans())
        rest.append([*events, done(place, "".join(whole)) if ends_well else dropped(place)])
    mixed: list[Event] = []
    rng = random.Random(draw(st.integers(0, 999)))
    while any(rest):
        mixed.append(rng.choice([events for events in rest if events]).pop(0))
    for n, event in enumerate(mixed):
        if isinstance(event, ProposalDone):
            mixed[n] = done(event.place, event.text, seconds=float(n))
    return mixed


@given(layers(), st.sampled_from(["seeded", "arrival"]), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_what_is_warmed_begins_the_final_prompt(events: list[Event], order: str, seed: int) -> None:
    count = len({event.place for event in events if not isinstance(event, Retried)})  # type: ignore[union-attr]
    reading = ReferenceOrder(recipe_of(order), count, seed)
    watched = ReadyReferences(reading, 2, ["a"] * count, 10**9)
    seen = []
    for event in events:
        if watched.note(event):
            seen.append(watched.texts())
    final = [p.text for p in reading.sort([e for e in events if isinstance(e, ProposalDone)], 2)]
    grown_and_dropped = {e.place for e in events if isinstance(e, ProposalDropped)}
    for texts in seen:
        *whole, last = texts or [""]
        assert whole == final[: len(whole)]
        is_beginning = len(whole) < len(final) and final[len(whole)].startswith(last)
        assert is_beginning or not last or int(last[0]) in grown_and_dropped
    assert watched.texts() == final


def test_a_seeded_order_is_that_of_all_places_without_those_that_did_not_come() -> None:
    reading = ReferenceOrder(recipe_of(), 5, seed=3)
    came = [done(place, str(place)) for place in (0, 2, 3)]
    drawn = [place for place in reading.places(2) if place in (0, 2, 3)]
    assert [p.place for p in reading.sort(came, 2)] == drawn


def test_every_place_stands_everywhere_equally_often() -> None:
    firsts = [ReferenceOrder(recipe_of(), 4, seed).places(2)[0] for seed in range(2000)]
    assert all(430 < firsts.count(place) < 570 for place in range(4))


def test_an_order_by_arrival_has_the_seed_decide_between_equals() -> None:
    reading = ReferenceOrder(recipe_of("arrival"), 3, seed=1)
    came = [done(0, "x", 2.0), done(1, "y", 1.0), done(2, "z", 2.0)]
    first, *equals = [p.place for p in reading.sort(came, 2)]
    assert first == 1
    assert equals == [place for place in reading.places(2) if place != 1]


def test_a_reference_that_may_be_cut_is_not_warmed() -> None:
    first, second, third = places()
    watched = ready(most=10)
    for place, words in ((first, "short"), (second, "x" * 11), (third, "y")):
        watched.note(done(place, words))
    assert watched.texts() == ["short"]


def test_a_growing_proposal_is_warmed_in_steps_and_only_the_next_one() -> None:
    first, second, _ = places()
    watched = ready()
    assert not watched.note(ProposalDelta(1, second, "a", "x" * 2 * STEP))
    assert not watched.note(ProposalDelta(1, first, "a", "y" * (STEP - 1)))
    assert watched.note(ProposalDelta(1, first, "a", "y"))
    assert watched.texts() == ["y" * STEP]
    assert not watched.note(ProposalDelta(1, first, "a", "y"))
    watched.note(done(first, "y" * (STEP + 1)))
    assert watched.texts() == ["y" * (STEP + 1), "x" * 2 * STEP]


def test_reasoning_and_proposals_that_begin_anew_are_not_warmed_early() -> None:
    first, *_ = places()
    watched = ready()
    watched.note(ProposalDelta(1, first, "a", "<think>" + "y" * 2 * STEP))
    assert watched.texts() == []
    watched = ready()
    watched.note(ProposalDelta(1, first, "a", "y" * STEP))
    watched.note(Retried(1, "a", "lost"))
    assert watched.texts() == []
    watched.note(done(first, "another"))
    assert watched.texts() == ["another"]


@pytest.mark.parametrize(
    ("aggregator", "repeatable", "says"),
    [
        ({}, False, None),
        ({}, True, "same seed"),
        ({"overlap": "on"}, True, None),
        ({"overlap": "off"}, False, "recipe says so"),
        ({"overlap": False}, False, "recipe says so"),  # as YAML reads `off`
        ({"method": "select"}, False, "does not read"),
    ],
)
def test_when_there_is_an_overlap(
    aggregator: dict[str, Any], repeatable: bool, says: str | None
) -> None:
    why = why_no_overlap(recipe_of(**aggregator), repeatable=repeatable)
    assert why is None if says is None else (why is not None and says in why)


@pytest.mark.virtual_time
@pytest.mark.parametrize("style", ["system", "tail"])
async def test_the_prompt_is_warmed_as_proposals_come(mix: Mixture, warmed: Warmed, style: str) -> None:
    recipe = mix.recipe(["a", "b", "c"], references={"style": style, "order": "arrival"})
    await mix.answer(recipe, seed=None)
    (last,) = warmed.calls("z")
    start = [0.0] if style == "tail" else []
    assert [at for at, _, _ in warmed.warmed] == [*start, 1, 2]  # no warm-up at the layer's end
    assert {model for _, model, _ in warmed.warmed} == {"z"}
    for _, _, messages in warmed.warmed[len(start) :]:
        assert "from a" in common(text(messages), last.text)
    assert "from b" in common(text(warmed.warmed[-1][2]), last.text)
    assert last.at == 3


@pytest.mark.virtual_time
async def test_a_seeded_order_is_kept_although_others_come_first(mix: Mixture, warmed: Warmed) -> None:
    recipe = mix.recipe(["a", "b", "c"], aggregator={"overlap": "on"})
    for seed in range(6):
        warmed.warmed.clear()
        outcome = await mix.answer(recipe, seed=seed)
        order = [r.place for r in outcome.summary.stages[-1].references]
        ends = {max(order[: n + 1]) + 1 for n in range(3)}  # warmed with all before it
        assert [at % 3 for at, _, _ in warmed.warmed] == sorted(end for end in ends if end < 3)


@pytest.mark.virtual_time
async def test_one_warm_up_at_a_time_and_the_newest_follows(mix: Mixture, warmed: Warmed) -> None:
    warmed.warm_s = 1.5
    outcome = await mix.answer(mix.recipe(["a", "b", "c"], references={"order": "arrival"}))
    assert [at for at, _, _ in warmed.warmed] == [1, 2.5]
    assert (warmed.most_at_once, warmed.at_once) == (1, 0)  # the end of the layer has ended the warm-up
    assert warmed.calls("z")[0].at == 3
    assert outcome.text == "the answer"


@pytest.mark.virtual_time
@pytest.mark.parametrize("error", [EngineUnavailable("gone", model="z"), ValueError("a defect")])
async def test_an_answer_does_not_know_of_a_failed_warm_up(
    mix: Mixture, warmed: Warmed, error: Exception
) -> None:
    recipe = mix.recipe(["a", "b", "c"], references={"order": "arrival"})
    warmed.error = error
    outcome = await mix.answer(recipe)
    assert len(warmed.warmed) == 1  # a failed warm-up is not tried again
    assert (outcome.text, outcome.summary.degraded, outcome.summary.retried) == (
        "the answer",
        False,
        (),
    )
    assert sum(call.model == "z" for call in outcome.summary.calls) == 1


@pytest.mark.virtual_time
async def test_a_busy_aggregator_is_asked_again_when_a_proposal_ends(
    mix: Mixture, warmed: Warmed
) -> None:
    warmed.is_busy = True
    warmed.scripts["c"] = [part for _ in range(12) for part in (0.25, "x" * STEP)]
    recipe = mix.recipe(["a", "b", "c"], references={"order": "arrival"})
    await mix.answer(recipe, stream_proposals=True)
    assert [at for at, _, _ in warmed.warmed] == [1, 2]  # no warm-up while the last proposal grows
    warmed.warmed.clear()
    warmed.is_busy = False
    await mix.answer(recipe, stream_proposals=True)
    assert len(warmed.warmed) > 4


@pytest.mark.virtual_time
async def test_a_client_that_leaves_ends_the_warm_up(mix: Mixture, warmed: Warmed) -> None:
    warmed.warm_s = 50
    recipe = mix.recipe(["a", "b", "c"], references={"order": "arrival"})
    events = moa.answer(QUESTION, recipe, warmed)
    async for event in events:
        if isinstance(event, ProposalDone) and event.model == "b":
            break
    assert warmed.at_once == 1
    await events.aclose()
    assert warmed.at_once == 0


class Warming(Scripted):
    """Real replicas of scripted engines, which take warm-ups."""

    async def warm(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int | None:
        return await self._replicas[model].warm(messages, template)

    def replica(self, model: str) -> Replica:
        return self._replicas[model]


@pytest.mark.virtual_time
async def test_the_first_token_is_sooner_by_the_share_that_was_warmed() -> None:
    seconds = {}
    for overlap in ("off", "auto"):
        # `a` and `b` take no time to read, and write 100 words in 1 s and in 3 s.
        slow = {"engine": "scripted", "tokens": 100, "first_token_s": 0}
        mixture = Recipe.model_validate(
            {
                "name": "mix",
                "models": {
                    "a": slow | {"token_s": 0.01},
                    "b": slow | {"token_s": 0.03},
                    "z": {"engine": "scripted", "first_token_s": 1, "token_s": 0, "tokens": 5},
                },
                "layers": [{"proposers": [{"model": "a"}, {"model": "b"}]}],
                "aggregator": {"model": "z", "overlap": overlap},
                "references": {"order": "arrival", "prompt": "Merge:"},
            }
        )
        models = Warming(mixture)
        await models.start()
        events = [event async for event in moa.answer(QUESTION, mixture, models)]
        summary = events[-1].summary  # type: ignore[union-attr]
        call = summary.answered.call
        assert call is not None
        seconds[overlap] = summary.answered.first_s
        stats = await models.stats("z")
        assert (stats.started, stats.finished) == (1, 1)  # warm-ups are no calls
        if overlap == "off":
            assert (call.cached_tokens, stats.warmed_tokens) == (0, 0)
        else:
            assert 0.5 < call.cached_tokens / call.prompt_tokens < 1
            assert seconds["auto"] == pytest.approx(1 - call.cached_tokens / call.prompt_tokens)
        await models.stop()
    assert seconds["off"] == 1


@pytest.mark.virtual_time
async def test_a_prompt_with_tools_is_warmed_with_them(mix: Mixture, warmed: Warmed) -> None:
    use = {"tools": [{"name": "look_up_far_away", "parameters": {"type": "object"}}]}
    sampling = Sampling.model_validate({"extra": {"tool_use": use}})
    recipe = mix.recipe(["a", "b", "c"], references={"order": "arrival"})
    writer = LlamaCppModel.model_validate({"engine": "llamacpp", "weights": [{"path": "z.gguf"}]})
    recipe = recipe.model_copy(update={"models": {**recipe.models, "z": writer}})
    await mix.answer(recipe, sampling=sampling)
    (last,) = warmed.calls("z")
    assert len(warmed.warmed) == 2
    for _, _, messages in warmed.warmed:
        assert ["look_up_far_away" in text(each) for each in (messages, last.messages)] == [True] * 2
        assert "from a" in common(text(messages), last.text)
