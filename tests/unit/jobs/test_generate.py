"""Answering a set: what engines are asked, what is kept, and what another run asks again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Message
from configs.errors import ContextTooLong, EngineError, EngineUnavailable
from configs.schema import Recipe
from jobs import variants
from jobs.generate import (
    FAILURES_IN_A_ROW,
    GenerateProgress,
    GenerateTask,
    RunStopped,
    generate,
    generator_of,
    row_seed,
)
from jobs.records import Answer, Row
from jobs.store import Store, StoreError
from jobs.store.writer import Action, Writer
from jobs.stored_calls import CallPatience, StoredCalls
from jobs.variants import Variant
from tests.unit.scripts import Asked, FakeModels, Step

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]


def recipe(*layers: Sequence[Any], **parts: Any) -> Recipe:
    """`a` and `b` propose, `z` aggregates; `c` and `y` are there for variants."""
    places = [
        {"proposers": [{"model": p} if isinstance(p, str) else p for p in layer]}
        for layer in layers or [["a", "b"]]
    ]
    models = {name: {"engine": "scripted"} for name in "abcyz"}
    base = {"name": "mix", "models": models, "layers": places, "aggregator": {"model": "z"}}
    return Recipe.model_validate(base | parts)


MIX = variants.mixture(recipe())


def question(asked: Asked) -> str:
    """The row's prompt, or its last turn."""
    return asked.messages[-1]["content"]


def says(asked: Asked) -> list[Step]:
    return [f"{asked.model} on {question(asked)} with {asked.sampling.seed}"]


def fails_on(prompt: str, error: Exception) -> Callable[[Asked], list[Step]]:
    return lambda asked: [error] if question(asked) == prompt else says(asked)


@dataclass
class Bench:
    """A store with rows, and engines that count what they are asked."""

    store: Store
    models: FakeModels = field(default_factory=lambda: FakeModels(dict.fromkeys("abcyz", says)))
    seen: list[GenerateProgress] = field(default_factory=list)

    async def run(self, *them: Variant, seed: int = 0, room: int = 50, **how: Any) -> GenerateProgress:
        """One run of the program, with calls of its own."""
        names = self.models.scripts
        identities = dict.fromkeys(names, "1")
        them = them or (MIX,)
        for variant in them:
            self.store.add_generator(generator_of(variant, identities, seed))
        retries = CallPatience(attempts=2, unavailable_s=10)
        self.models.asked.clear()
        self.seen.clear()
        async with StoredCalls(
            self.store, self.models, identities, dict.fromkeys(names, room), retries
        ) as calls:
            task = GenerateTask(them, seed, **how)
            return await generate(task, self.store, calls, self.seen.append)

    def ask(self, *prompts: str) -> None:
        self.store.add_rows(Row(index, (prompt,)) for index, prompt in enumerate(prompts))

    @property
    def asked(self) -> dict[str, int]:
        """How often each model was asked by the last run."""
        return dict(sorted(Counter(asked.model for asked in self.models.asked).items()))

    def answers(self, generator: str = "mix") -> list[Answer]:
        return list(self.store.answers(generator))

    def text(self, key: bytes) -> str:
        call = self.store.call(key)
        assert call is not None
        return call.whole.text


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Store.open(tmp_path) as store:
        yield Bench(store)


async def test_every_row_is_answered_once_by_calls_of_its_own(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(20)))
    assert await bench.run() == GenerateProgress(rows=20, answered=20)
    assert bench.asked == {"a": 20, "b": 20, "z": 20}
    assert [answer.row for answer in bench.answers()] == list(range(20))
    for answer in bench.answers():
        assert answer.text.startswith(f"z on q{answer.row} with ")
        assert (answer.turn, answer.missing, answer.finish_reason) == (0, (), "stop")
        assert answer.seconds > 0
        assert answer.at > 1e9
    assert [so_far.answered for so_far in bench.seen] == list(range(1, 21))


async def test_a_second_run_asks_nothing(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    before = bench.answers()
    assert await bench.run() == GenerateProgress(rows=2, answered=2)
    assert bench.asked == {}
    assert bench.answers() == before


async def test_what_is_stored_makes_another_generators_answers_without_a_call(bench: Bench) -> None:
    """As after a crash between the last call and the answer."""
    bench.ask("q0", "q1")
    await bench.run()
    before = bench.answers()
    await bench.run(replace(MIX, name="again"))
    assert bench.asked == {}
    again = bench.answers("again")
    assert [(a.text, a.used) for a in again] == [(a.text, a.used) for a in before]
    assert [a.seconds for a in again] == [0, 0]


async def test_only_an_answer_whose_own_calls_were_stored_took_no_time(bench: Bench) -> None:
    bench.ask("q0")
    await bench.run()
    bench.store.add_rows([Row(1, ("new",))])
    await bench.run(replace(MIX, name="again"))
    stored, made = bench.answers("again")
    assert stored.seconds == 0 < made.seconds


async def test_rows_that_were_added_are_all_that_a_longer_run_asks(bench: Bench) -> None:
    bench.ask("q0")
    await bench.run()
    bench.store.add_rows([Row(1, ("q1",))])
    assert await bench.run() == GenerateProgress(rows=2, answered=2)
    assert [question(asked) for asked in bench.models.asked] == ["q1"] * 3


async def test_a_later_turn_is_asked_in_view_of_the_variants_own_earlier_answers(bench: Bench) -> None:
    system = Message(role="system", content="Be brief.")
    bench.store.add_rows([Row(0, ("one", "two"), (system,))])
    assert await bench.run(MIX, variants.alone(MIX.recipe, "a")) == GenerateProgress(rows=2, answered=2)
    for name in ("mix", "a"):
        first, second = bench.answers(name)
        assert (first.turn, second.turn) == (0, 1)
        writer = second.used[0].model
        said = [asked for asked in bench.models.calls(writer) if first.text in asked.text]
        assert said
        for asked in said:
            contents = [message["content"] for message in asked.messages]
            assert contents[-3:] == ["one", first.text, "two"]
            assert contents[0].startswith("Be brief.")
    assert bench.asked == {"a": 3, "b": 2, "z": 2}  # the first turn of a alone is its proposal


async def test_a_conversation_goes_on_where_it_stopped(bench: Bench) -> None:
    bench.store.add_rows([Row(0, ("one", "two"))])
    bench.models.scripts["z"] = fails_on("two", EngineError("broken"))
    # With two proposals there is a reference to stand in, but a fault makes the row fail.
    assert (await bench.run()).failed == 1
    assert [answer.turn for answer in bench.answers()] == [0]
    bench.models.scripts["z"] = says
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    assert bench.asked == {"z": 1}


async def test_a_row_that_fails_is_kept_apart_and_tried_again_by_the_next_run(bench: Bench) -> None:
    bench.ask("q0", "q1", "q2")
    bench.models.scripts["a"] = fails_on("q1", EngineError("the engine broke"))
    for run in (1, 2):
        assert await bench.run() == GenerateProgress(rows=3, answered=2, failed=1)
        [failure] = bench.store.failures()
        assert (failure.stage, failure.generator, failure.row) == ("generate", "mix", 1)
        assert (failure.cause, failure.attempts) == ("engine_error", run)
        assert failure.detail == "model 'a': the engine broke"
        assert failure.at > 1e9
        assert [answer.row for answer in bench.answers()] == [0, 2]
    bench.models.scripts["a"] = says
    assert await bench.run() == GenerateProgress(rows=3, answered=3)
    assert bench.asked == {"a": 1, "z": 1}  # what b had proposed was stored
    assert bench.store.failures() == []


async def test_after_a_fault_no_later_stage_works_for_nothing(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [EngineError("broken")]
    await bench.run(variants.mixture(recipe(["a", "b"], ["a", "b"])))
    assert bench.asked == {"a": 2, "b": 1}
    assert bench.store.failures()[0].cause == "engine_error"


async def test_a_fault_does_not_lose_what_the_others_of_its_layer_write(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts |= {"a": [EngineError("broken")], "b": lambda asked: [500.0, *says(asked)]}
    await bench.run()
    bench.models.scripts["a"] = says
    assert (await bench.run()).answered == 1
    assert bench.asked == {"a": 1, "z": 1}


async def test_degraded_answers_are_kept_where_they_are_allowed(bench: Bench) -> None:
    bench.store.add_rows([Row(0, ("one", "two")), Row(1, ("whole",))])
    bench.models.scripts["a"] = fails_on("one", EngineError("broken"))
    done = await bench.run(allow_degraded=True)
    assert done == GenerateProgress(rows=2, answered=2, degraded=1)
    first, *others = bench.answers()
    [missing] = first.missing
    assert (missing["layer"], missing["model"], missing["cause"]) == (1, "a", "engine_error")
    assert [used.model for used in first.used] == ["z", "b"]
    assert [(len(answer.used), answer.missing) for answer in others] == [(3, ()), (3, ())]


async def test_an_empty_proposal_is_the_models_own_and_makes_no_row_fail(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [" "]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    [answer] = bench.answers()
    assert [(m["model"], m["cause"]) for m in answer.missing] == [("a", "empty")]
    assert [(used.layer, used.place, used.model) for used in answer.used] == [(0, 0, "z"), (1, 1, "b")]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)


async def test_a_layer_without_its_quorum_is_no_part_of_an_answer(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["c"] = [""]
    await bench.run(variants.mixture(recipe(["a", "b"], ["a", "c"], limits={"quorum": 2})))
    [answer] = bench.answers()
    assert [(used.layer, used.model) for used in answer.used] == [(0, "z"), (1, "a"), (1, "b")]
    assert [m["cause"] for m in answer.missing] == ["empty", "quorum_not_met"]


async def test_a_proposal_that_does_not_fit_makes_no_row_fail(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["a"] = [ContextTooLong("too long")]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    assert bench.answers()[0].missing[0]["cause"] == ContextTooLong.code


async def test_an_aggregator_without_a_text_leaves_its_row_to_the_best_proposal(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["z"] = [""]
    assert await bench.run() == GenerateProgress(rows=1, answered=1)
    [answer] = bench.answers()
    assert answer.text.startswith("a on q0")
    assert [used.model for used in answer.used] == ["a", "b"]
    assert [(m["layer"], m["model"], m["cause"]) for m in answer.missing] == [(0, "z", "empty")]


async def test_an_aggregator_that_fails_fails_its_row(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["z"] = [EngineError("broken")]
    mix = recipe(aggregator={"model": "z", "fallbacks": ["y"]})
    assert (await bench.run(variants.mixture(mix))).failed == 1
    assert bench.asked == {"a": 1, "b": 1, "y": 1, "z": 2}
    assert bench.store.failures()[0].detail == "model 'z': broken"


async def test_a_batch_knows_no_deadline(bench: Bench) -> None:
    bench.ask("q0")
    limits = {"deadline_s": 9, "layer_deadline_s": 5, "grace_s": 0}
    aggregator = {"model": "z", "first_token_timeout_s": 5}
    bench.models.scripts |= dict.fromkeys("bz", lambda asked: [90_000.0, *says(asked)])
    await bench.run(variants.mixture(recipe(limits=limits, aggregator=aggregator)))
    [answer] = bench.answers()
    assert answer.missing == ()
    assert answer.text.startswith("z on q0")


async def test_reasoning_is_no_part_of_an_answer(bench: Bench) -> None:
    bench.ask("q0")
    bench.models.scripts["z"] = ["<think>hm</think>", "\nyes"]
    await bench.run()
    assert bench.answers()[0].text == "yes"


async def test_a_run_in_which_nothing_works_stops(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(FAILURES_IN_A_ROW + 50)))
    bench.models.scripts["b"] = lambda asked: (
        says(asked) if question(asked) == "q0" else [EngineUnavailable("gone")]
    )
    with pytest.raises(RunStopped, match=r"100 rows failed .* engine_unavailable: model 'b': gone"):
        await bench.run(in_flight=4)
    assert len(bench.store.failures()) == FAILURES_IN_A_ROW
    assert [answer.row for answer in bench.answers()] == [0]
    bench.models.scripts["b"] = says
    done = await bench.run()
    assert done == GenerateProgress(rows=FAILURES_IN_A_ROW + 50, answered=FAILURES_IN_A_ROW + 50)
    assert bench.store.failures() == []


async def test_an_answer_in_between_lets_a_run_go_on(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(2 * FAILURES_IN_A_ROW)))
    good = f"q{FAILURES_IN_A_ROW - 1}"
    bench.models.scripts["a"] = lambda asked: (
        says(asked) if question(asked) == good else [EngineError("broken")]
    )
    with pytest.raises(RunStopped):
        await bench.run(in_flight=1)
    assert len(bench.store.failures()) == 2 * FAILURES_IN_A_ROW - 1


async def test_rows_that_are_too_long_do_not_stop_a_run(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(FAILURES_IN_A_ROW + 5)))
    bench.models.scripts["a"] = [ContextTooLong("too long")]
    done = await bench.run(variants.alone(MIX.recipe, "a"))
    assert (done.answered, done.failed) == (0, FAILURES_IN_A_ROW + 5)


async def test_without_a_proposer_only_the_aggregator_is_asked_again(bench: Bench) -> None:
    bench.ask("q0", "q1")
    base = variants.mixture(recipe(["a", "b", "c"]))
    await bench.run(base)
    assert await bench.run(variants.without(base.recipe, "a")) == GenerateProgress(rows=2, answered=2)
    assert bench.asked == {"z": 2}
    assert "a on" not in "".join(asked.text for asked in bench.models.asked)


async def test_a_proposer_alone_asks_nothing_for_its_answers_are_its_proposals(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    proposals = [bench.text(used.key) for a in bench.answers() for used in a.used if used.model == "b"]
    await bench.run(variants.alone(MIX.recipe, "b"))
    assert bench.asked == {}
    assert [answer.text for answer in bench.answers("b")] == proposals
    assert [[(u.layer, u.place, u.model) for u in a.used] for a in bench.answers("b")] == [
        [(0, 0, "b")]
    ] * 2


async def test_a_new_aggregator_asks_for_the_aggregation_alone(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    await bench.run(variants.aggregated_by(MIX.recipe, "y"))
    assert bench.asked == {"y": 2}


async def test_a_new_proposer_asks_for_its_column_and_the_aggregation(bench: Bench) -> None:
    bench.ask("q0", "q1")
    await bench.run()
    await bench.run(variants.with_also(MIX.recipe, "c"))
    assert bench.asked == {"c": 2, "z": 2}


async def test_variants_that_run_at_once_share_their_calls(bench: Bench) -> None:
    bench.ask("q0", "q1")
    them = (MIX, *(variants.alone(MIX.recipe, model) for model in "ab"), replace(MIX, name="copy"))
    assert await bench.run(*them) == GenerateProgress(rows=8, answered=8)
    assert bench.asked == {"a": 2, "b": 2, "z": 2}


async def test_equal_rows_share_their_calls_and_their_answer(bench: Bench) -> None:
    bench.ask("same", "other", "same")
    await bench.run()
    assert bench.asked == {"a": 2, "b": 2, "z": 2}
    first, other, third = bench.answers()
    assert (first.text, first.used) == (third.text, third.used)
    assert first.text != other.text


async def test_the_calls_behind_an_answer_are_kept_with_their_places(bench: Bench) -> None:
    bench.ask("q0")
    first = ["a", {"model": "b", "samples": 2}]
    await bench.run(variants.mixture(recipe(first, ["b", "a"])))
    [answer] = bench.answers()
    assert [(used.layer, used.place, used.model) for used in answer.used] == [
        (0, 0, "z"),
        (1, 0, "a"),
        (1, 1, "b"),
        (1, 2, "b"),
        (2, 0, "b"),
        (2, 1, "a"),
    ]
    assert bench.text(answer.used[0].key) == answer.text
    assert len({used.key for used in answer.used}) == 6
    texts = [bench.text(used.key) for used in answer.used]
    assert [text[0] for text in texts] == ["z", "a", "b", "b", "b", "a"]
    [aggregation] = bench.models.calls("z")
    shown = [text in aggregation.text for text in texts]
    assert shown == [False] * 4 + [True] * 2


async def test_so_many_answers_are_under_way_and_no_more(bench: Bench) -> None:
    bench.ask(*(f"q{n}" for n in range(12)))
    most: list[int] = []

    def slowly(asked: Asked) -> list[Step]:
        under_way = {question(other) for other in bench.models.asked if not other.ended}
        most.append(len(under_way))
        return [1.0, *says(asked)]

    bench.models.scripts = dict.fromkeys("abz", slowly)
    await bench.run(in_flight=5)
    assert max(most) == 5
    assert most[-1] < 5


async def test_another_seed_draws_everything_anew(bench: Bench) -> None:
    bench.ask("q0")
    await bench.run()
    await bench.run(replace(MIX, name="other"), seed=1)
    assert bench.asked == {"a": 1, "b": 1, "z": 1}


def test_a_rows_seed_is_its_contents_and_not_its_place() -> None:
    row = Row(0, ("one", "two"), (Message(role="system", content="x"),))
    seeds = [row_seed(0, row, 0), row_seed(0, row, 1), row_seed(1, row, 0)]
    seeds += [row_seed(0, replace(row, before=()), 0), row_seed(0, Row(0, ("three",)), 0)]
    assert len(set(seeds)) == len(seeds)
    assert row_seed(0, replace(row, index=9, dataset="d", category="c"), 0) == seeds[0]
    assert row_seed(0, replace(row, turns=("one", "else")), 0) == seeds[0]
    assert all(0 <= seed < 2**31 for seed in seeds)


IDENTITIES = dict.fromkeys("abcyz", "1")


def identity(
    of: Recipe, model: str | None = None, identities: Mapping[str, str] = IDENTITIES, seed: int = 0
) -> str:
    return generator_of(Variant("v", of, model), identities, seed).identity


@pytest.mark.parametrize(
    "other",
    [
        recipe(description="other"),
        recipe(limits={"deadline_s": 700, "queue": 9}),
        recipe(cards={"patience_s": 7}),
        recipe(name="other"),
    ],
)
def test_how_a_run_goes_is_no_part_of_a_generators_identity(other: Recipe) -> None:
    assert identity(other) == identity(recipe())
    assert identity(other, "a") == identity(recipe(), "a")


@pytest.mark.parametrize(
    "other",
    [
        recipe(["b", "a"]),
        recipe(["a", "b"], ["a"]),
        recipe(["a", {"model": "b", "samples": 2}]),
        recipe(["a", {"model": "b", "sampling": {"temperature": 0.1}}]),
        recipe(aggregator={"model": "y"}),
        recipe(aggregator={"model": "z", "fallbacks": ["y"]}),
        recipe(aggregator={"model": "z", "sampling": {"max_tokens": 7}}),
        recipe(references={"style": "tail"}),
        recipe(references={"prompt": "Choose."}),
    ],
)
def test_what_is_asked_is_a_mixtures_identity(other: Recipe) -> None:
    assert identity(other) != identity(recipe())


def test_a_model_is_known_by_what_it_is_and_only_to_those_who_ask_it() -> None:
    base, fallback = recipe(), recipe(aggregator={"model": "z", "fallbacks": ["y"]})
    for model, mix, alone, spare in (("a", 1, 1, 1), ("z", 1, 0, 1), ("y", 0, 0, 1), ("c", 0, 0, 0)):
        changed = IDENTITIES | {model: "2"}
        assert (identity(base, None, changed) != identity(base)) == mix
        assert (identity(base, "a", changed) != identity(base, "a")) == alone
        assert (identity(fallback, None, changed) != identity(fallback)) == spare
    assert identity(base, seed=1) != identity(base)
    assert identity(base, "a", seed=1) != identity(base, "a")
    sampled = recipe([{"model": "a", "sampling": {"temperature": 0.1}}, "b"])
    assert identity(sampled, "a") != identity(base, "a")
    assert identity(sampled, "b") == identity(base, "b")


def test_a_generator_tells_people_what_it_is() -> None:
    mix = generator_of(MIX, IDENTITIES, 0)
    assert (mix.name, mix.kind) == ("mix", "mixture")
    assert Recipe.model_validate(mix.about["recipe"]) == MIX.recipe
    alone = generator_of(variants.alone(MIX.recipe, "a"), IDENTITIES, 0)
    assert (alone.name, alone.kind, alone.about) == ("a", "model", {"model": {"engine": "scripted"}})


async def test_a_model_that_only_aggregates_is_sampled_alone_as_the_aggregator(bench: Bench) -> None:
    bench.ask("q0")
    base = recipe(aggregator={"model": "z", "sampling": {"temperature": 0.1, "max_tokens": 9}})
    await bench.run(variants.alone(base, "z"))
    [asked] = bench.models.asked
    assert (asked.sampling.temperature, asked.sampling.max_tokens) == (0.1, 9)


async def test_no_rows_are_no_work(bench: Bench) -> None:
    assert await bench.run() == GenerateProgress()
    assert bench.asked == {}


async def test_a_text_that_cannot_be_stored_fails_its_row(bench: Bench) -> None:
    bench.ask("q0", "q1")
    bench.models.scripts["a"] = lambda asked: ["\ud800"] if question(asked) == "q0" else says(asked)
    assert await bench.run() == GenerateProgress(rows=2, answered=1, failed=1)
    [failure] = bench.store.failures()
    assert (failure.row, failure.cause, failure.detail) == (
        0,
        "internal_error",
        "model 'a': StoreError",
    )


async def test_a_disk_that_refuses_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ask(*(f"q{n}" for n in range(9)))
    left = iter(range(10))
    write = Writer.write

    async def until_full(writer: Writer, action: Action) -> None:
        if next(left, None) is None:
            raise StoreError("the disk is full")
        await write(writer, action)

    monkeypatch.setattr(Writer, "write", until_full)
    with pytest.raises(StoreError, match="the disk is full"):
        await bench.run(in_flight=2)
    monkeypatch.setattr(Writer, "write", write)
    assert await bench.run() == GenerateProgress(rows=9, answered=9)
    assert len(bench.models.asked) < 27
