"""Calls over a store: what is asked of an engine, how often, and what is tried again."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from actors.engine import Delta, Message
from configs.errors import (
    BadRequest,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestError,
    ServerUnreachable,
)
from configs.schema import Sampling
from jobs.identity import call_key
from jobs.store import Store, StoreError
from jobs.stored_calls import CallPatience, ModelNotThere, StoredCalls, StoredModels
from tests.unit.scripts import Asked, FakeModels, Step

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]

HELLO = [Message(role="user", content="hello")]
PATIENCE = CallPatience(attempts=3, unavailable_s=100, first_s=1, longest_s=8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def models() -> FakeModels:
    return FakeModels({"a": [1.0, "from a"], "b": ["from b"]})


@pytest.fixture
async def calls(store: Store, models: FakeModels) -> AsyncIterator[StoredCalls]:
    async with opened(store, models) as made:
        yield made


def opened(store: Store, models: FakeModels, limit: int = 9, identity: str = "1") -> StoredCalls:
    """Calls over a store.

    Args:
        store: of the calls.
        models: that are asked.
        limit: most calls to each model at once.
        identity: of every model.
    """
    names = models.scripts
    return StoredCalls(
        store, models, dict.fromkeys(names, identity), dict.fromkeys(names, limit), PATIENCE
    )


async def ask(calls: StoredCalls, model: str = "a", seed: int | None = 1) -> str:
    """The text of one call."""
    return (await calls.complete(model, HELLO, Sampling(seed=seed))).whole.text


def begin(calls: StoredCalls, model: str = "a", seed: int | None = 1) -> asyncio.Task[str]:
    return asyncio.create_task(ask(calls, model, seed))


def by_attempt(models: FakeModels, model: str, outcomes: Sequence[Sequence[Step]]) -> None:
    """Script a model by attempt; further attempts end like the last one."""

    def script(_: Asked) -> Sequence[Step]:
        return outcomes[min(len(models.calls(model)), len(outcomes)) - 1]

    models.scripts[model] = script


async def test_a_stored_call_is_never_asked_again(store: Store, models: FakeModels) -> None:
    written = Delta("text", "why", "length", 5, 7, ({"token": "x"},))
    models.scripts["a"] = [written]
    async with opened(store, models) as calls:
        first = await calls.complete("a", HELLO, Sampling(seed=1))
        assert not first.was_stored
        assert await calls.complete("a", HELLO, Sampling(seed=1)) == replace(first, was_stored=True)
    async with opened(store, models) as later:
        assert await later.complete("a", HELLO, Sampling(seed=1)) == replace(first, was_stored=True)
        assert (later.counts.made, later.counts.reused, later.counts.tokens) == (0, 1, 0)
    assert len(models.asked) == 1
    assert (calls.counts.made, calls.counts.reused) == (1, 1)
    assert calls.counts.tokens == first.whole.completion_tokens > 0
    assert first.whole.text == "text"
    assert first.key == call_key("a", "1", HELLO, Sampling(seed=1))
    stored = store.call(first.key)
    assert stored is not None
    assert (stored.whole, stored.model, stored.seed) == (first.whole, "a", 1)


async def test_another_identity_of_a_model_is_asked_anew(store: Store, models: FakeModels) -> None:
    for identity in ("1", "2"):
        async with opened(store, models, identity=identity) as calls:
            await ask(calls)
    assert len(models.asked) == 2


async def test_two_who_want_a_call_at_once_share_it(calls: StoredCalls, models: FakeModels) -> None:
    wanting = [
        begin(calls),
        begin(calls),
        begin(calls, seed=2),
        begin(calls, "b"),
    ]
    assert await asyncio.gather(*wanting) == ["from a"] * 3 + ["from b"]
    assert [(asked.model, asked.sampling.seed) for asked in models.asked] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
    ]
    assert (calls.counts.made, calls.counts.reused) == (3, 1)


async def test_two_who_share_a_call_share_its_error(calls: StoredCalls, models: FakeModels) -> None:
    models.scripts["a"] = [1.0, BadRequest("no")]
    outcomes = await asyncio.gather(begin(calls), begin(calls), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    assert len(models.asked) == 1
    with pytest.raises(BadRequest):
        await ask(calls)
    assert len(models.asked) == 2


@pytest.mark.parametrize("goes", [0, 1])
async def test_a_caller_who_goes_does_not_take_the_call_along(
    calls: StoredCalls, models: FakeModels, store: Store, goes: int
) -> None:
    both = begin(calls), begin(calls)
    await asyncio.sleep(0.5)
    both[goes].cancel()
    assert await both[1 - goes] == "from a"
    assert both[goes].cancelled()
    alone = begin(calls, seed=2)
    await asyncio.sleep(0.5)
    alone.cancel()
    await asyncio.sleep(2)
    assert store.call(call_key("a", "1", HELLO, Sampling(seed=2))) is not None
    assert await ask(calls, seed=2) == "from a"
    assert [asked.ended for asked in models.asked] == ["finished", "finished"]


async def test_leaving_ends_what_is_under_way_and_waits_for_it(
    store: Store, models: FakeModels
) -> None:
    models.closing_s = 3
    models.scripts["a"] = ["half", None]
    async with opened(store, models, limit=1) as calls:
        left = [begin(calls), begin(calls, seed=2)]
        await asyncio.sleep(1)
        assert [asked.ended for asked in models.asked] == [""]
    assert [asked.ended for asked in models.asked] == ["closed"]
    await asyncio.wait(left)
    assert [task.cancelled() for task in left] == [True, True]
    assert store.call(call_key("a", "1", HELLO, Sampling(seed=1))) is None


async def test_an_error_that_nobody_waits_for_is_not_complained_about(
    calls: StoredCalls, models: FakeModels
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    models.scripts["a"] = [1.0, BadRequest("no")]
    gone = begin(calls)
    await asyncio.sleep(0.5)
    gone.cancel()
    await asyncio.sleep(2)
    assert [asked.ended for asked in models.asked] == ["failed"]
    assert complaints == []


async def test_the_limit_bounds_the_calls_to_each_model(store: Store, models: FakeModels) -> None:
    most = {"a": 0, "b": 0}

    def working(model: str) -> list[Step]:
        running = [asked for asked in models.calls(model) if not asked.ended]
        most[model] = max(most[model], len(running))
        return [1.0, "x"]

    models.scripts = dict.fromkeys("ab", lambda asked: working(asked.model))
    async with opened(store, models, limit=3) as calls:
        await asyncio.gather(*(begin(calls, model, seed) for model in "ab" for seed in range(10)))
    assert most == {"a": 3, "b": 3}
    assert len(models.asked) == 20


async def test_a_failed_call_makes_way_for_the_next(store: Store, models: FakeModels) -> None:
    models.scripts["a"] = lambda asked: ["x"] if asked.sampling.seed == 9 else [BadRequest("no")]
    async with opened(store, models, limit=1) as calls:
        for seed in range(3):
            with pytest.raises(BadRequest):
                await ask(calls, seed=seed)
        assert await ask(calls, seed=9) == "x"


async def test_a_full_queue_is_waited_for_as_long_as_it_takes(
    calls: StoredCalls, models: FakeModels
) -> None:
    by_attempt(models, "a", [[Overloaded("full")]] * 500 + [["at last"]])
    assert await ask(calls) == "at last"
    assert asyncio.get_running_loop().time() > 5 * PATIENCE.unavailable_s
    assert (calls.counts.retried, calls.counts.made) == (500, 1)


async def test_waits_double_up_to_the_longest(calls: StoredCalls, models: FakeModels) -> None:
    by_attempt(models, "a", [[Overloaded("full")]] * 8 + [["at last"]])
    await ask(calls)
    times = [asked.at for asked in models.asked]
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, most in zip(waits, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most


async def test_a_model_that_is_away_is_waited_for_so_long_and_no_longer(
    calls: StoredCalls, models: FakeModels
) -> None:
    models.scripts["a"] = [EngineUnavailable("away")]
    with pytest.raises(EngineUnavailable, match="away"):
        await ask(calls)
    lasted = models.asked[-1].at - models.asked[0].at
    assert PATIENCE.unavailable_s <= lasted <= PATIENCE.unavailable_s + PATIENCE.longest_s
    assert calls.counts.made == 0


@pytest.mark.parametrize(
    "before",
    [
        [1e4, EngineUnavailable("it failed while the call waited for its turn")],
        [1e4, Overloaded("full")],
        [1e4, EngineError("failed late")],
    ],
)
async def test_only_the_time_counts_in_which_the_model_is_away(
    calls: StoredCalls, models: FakeModels, before: list[Step]
) -> None:
    away: list[Step] = [EngineUnavailable("away")]
    by_attempt(models, "a", [before, away, away, ["back"]])
    assert await ask(calls) == "back"
    assert len(models.asked) == 4


@pytest.mark.parametrize("other", [Overloaded("full"), EngineError("broken")])
async def test_a_model_that_comes_and_goes_is_not_away_in_between(
    calls: StoredCalls, models: FakeModels, other: Exception
) -> None:
    away: list[Step] = [EngineUnavailable("away")]
    there: list[Step] = [PATIENCE.unavailable_s, other]
    by_attempt(models, "a", [away, there, away, there, away, ["back"]])
    assert await ask(calls) == "back"


async def test_a_long_wait_for_a_model_is_said_once_for_all_calls(
    store: Store, models: FakeModels
) -> None:
    said: list[str] = []
    by_attempt(models, "a", [[EngineUnavailable("no connection")]] * 60 + [["back"]])
    names = models.scripts
    one, nine = dict.fromkeys(names, "1"), dict.fromkeys(names, 9)
    async with StoredCalls(store, models, one, nine, PATIENCE, say=said.append) as calls:
        assert await asyncio.gather(*(ask(calls, seed=seed) for seed in range(9))) == ["back"] * 9
    assert 1 <= len(said) <= 4
    assert re.fullmatch(r"waiting for model 'a' since ([5-9]|1\d) s: no connection", said[0])


@pytest.mark.parametrize("first", [ServerUnreachable("http://x: refused"), EngineUnavailable("loads")])
async def test_a_server_that_was_never_there_ends_the_job_and_one_that_was_is_waited_for(
    store: Store, models: FakeModels, first: EngineUnavailable
) -> None:
    patience = replace(PATIENCE, first_contact_s=0)
    names = models.scripts
    one, nine = dict.fromkeys(names, "1"), dict.fromkeys(names, 9)
    async with StoredCalls(store, models, one, nine, patience) as calls:
        by_attempt(models, "a", [[first], ["there"], [ServerUnreachable("gone")], ["back"]])
        if isinstance(first, ServerUnreachable):
            with pytest.raises(ModelNotThere) as ended:
                await ask(calls)
            assert str(ended.value) == "model 'a' cannot be reached: http://x: refused"
        assert await ask(calls) == "there"
        assert await ask(calls, seed=2) == "back"


async def test_a_call_that_hangs_fails_once_nothing_else_has_ended_for_long(
    store: Store, models: FakeModels
) -> None:
    patience = replace(PATIENCE, stall_s=30)
    names = models.scripts
    one, many = dict.fromkeys(names, "1"), dict.fromkeys(names, 99)
    by_attempt(models, "a", [[1e6, "never"], ["second try"]])
    models.scripts["b"] = lambda asked: [10.0 * (asked.sampling.seed or 0), "from b"]
    async with StoredCalls(store, models, one, many, patience) as calls:
        hanging = begin(calls)
        others = [begin(calls, "b", seed) for seed in range(1, 13)]
        assert await hanging == "second try"
        assert 150 <= asyncio.get_running_loop().time() < 160, "30 s after the last of the others"
        assert await asyncio.gather(*others) == ["from b"] * 12
        assert (calls.counts.retried, sum(calls.counts.in_work.values())) == (1, 0)


async def test_without_such_a_limit_a_call_may_take_for_ever(store: Store, models: FakeModels) -> None:
    models.scripts["a"] = [1e5, "at last"]
    async with opened(store, models) as calls:
        assert await ask(calls) == "at last"


async def test_a_model_that_fails_on_a_call_is_tried_so_often_and_no_more(
    calls: StoredCalls, models: FakeModels
) -> None:
    models.scripts["a"] = [EngineError("broken")]
    with pytest.raises(EngineError, match="broken"):
        await ask(calls)
    assert len(models.asked) == PATIENCE.attempts
    by_attempt(models, "b", [[EngineError("broken")]] * (PATIENCE.attempts - 1) + [["mended"]])
    assert await ask(calls, "b") == "mended"


async def test_a_full_queue_between_failures_is_no_attempt(
    calls: StoredCalls, models: FakeModels
) -> None:
    broken: list[Step] = [EngineError("broken")]
    full: list[Step] = [Overloaded("full")]
    away: list[Step] = [EngineUnavailable("away")]
    by_attempt(models, "a", [broken, full, away, full, broken, full, ["well"]])
    assert await ask(calls) == "well"


@pytest.mark.parametrize(
    "error", [BadRequest("no"), RequestError("odd"), ZeroDivisionError("a defect")]
)
async def test_what_would_fail_again_is_not_tried_again(
    calls: StoredCalls, models: FakeModels, error: Exception
) -> None:
    models.scripts["a"] = [error]
    with pytest.raises(type(error)):
        await ask(calls)
    assert len(models.asked) == 1
    assert calls.counts.retried == 0


async def test_a_call_that_cannot_be_stored_is_an_error(store: Store, models: FakeModels) -> None:
    models.scripts["a"] = ["\ud800"]
    async with opened(store, models) as calls:
        with pytest.raises(StoreError, match="cannot write"):
            await ask(calls)


async def test_an_answers_models_know_its_keys_and_whether_all_was_stored(
    calls: StoredCalls, models: FakeModels
) -> None:
    for stored in (False, True):
        answer = StoredModels(calls)
        streamed = [delta async for delta in answer.stream("a", HELLO, Sampling(seed=1))]
        whole = await answer.complete("b", HELLO, Sampling())
        assert (streamed[0].text, whole.text, len(streamed)) == ("from a", "from b", 1)
        assert answer.keys == {
            ("a", 1): call_key("a", "1", HELLO, Sampling(seed=1)),
            ("b", None): call_key("b", "1", HELLO, Sampling()),
        }
        assert answer.all_stored is stored
    assert len(models.asked) == 2


async def test_what_another_answer_asked_for_is_waited_for_too(calls: StoredCalls) -> None:
    answers = [StoredModels(calls), StoredModels(calls)]
    await asyncio.gather(*(each.complete("a", HELLO, Sampling(seed=1)) for each in answers))
    assert [each.all_stored for each in answers] == [False, False]


async def test_counting_tokens_is_tried_again_too(
    calls: StoredCalls, models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [EngineUnavailable("away"), Overloaded("full"), EngineError("broken")] * 2
    count = models.count_tokens

    async def faulty(*given: object) -> int:
        if len(failures) > 1:
            raise failures.pop()
        return await count(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(models, "count_tokens", faulty)
    answer = StoredModels(calls)
    assert await answer.count_tokens("a", HELLO) == 5
    assert await answer.token_ends("a", ["one two"]) == [[3, 7]]
    assert calls.counts.retried == 5
