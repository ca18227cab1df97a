"""Answering a set: what engines are asked, what is stored, and what another run asks again."""

from dataclasses import replace

import pytest

from actors.engine import Message
from configs.errors import EngineError
from jobs import variants
from jobs.generate import GenerateProgress, row_seed
from jobs.records import Row
from tests.unit.jobs.answering import MIX, Bench, fails_on, question, recipe, says
from tests.unit.scripts import Asked, Step

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]


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
    """So it is after a crash between the last call and the answer."""
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


async def test_no_rows_are_no_work(bench: Bench) -> None:
    assert await bench.run() == GenerateProgress()
    assert bench.asked == {}
