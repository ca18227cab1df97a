"""Limits and shares of keys, in virtual time."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.access import Allowance
from configs.errors import EngineError, OverAllowance, Overloaded
from serve_app.access.admission import (
    SPARE,
    AdmissionControl,
    Demand,
    admitted_events,
)
from serve_app.access.api_keys import Key
from serve_app.mixture.events import Answered, Call, Event, ProposalDone, Spent, Started


def claim(name: str = "alice", tokens: int = 10, needs: int = 0, **allowance: Any) -> Demand:
    key = Key(name, b"", Allowance(**allowance))
    return Demand(key, {"m": needs} if needs else {}, tokens)


def wait_s(ledger: AdmissionControl, wanted: Demand, now: float) -> float:
    """How long the request is told to wait; 0 if it was taken."""
    try:
        ledger.admit(wanted, now)
    except OverAllowance as error:
        return error.retry_after_s
    return 0


def test_concurrency_is_refused_at_once_until_one_ends() -> None:
    ledger, two = AdmissionControl({}), claim(concurrency=2)
    assert [wait_s(ledger, two, 0) for _ in range(3)] == [0, 0, 1]
    ledger.release(two, 0, 0)
    assert wait_s(ledger, two, 0) == 0
    assert wait_s(ledger, claim("bob", concurrency=2), 0) == 0


def test_requests_may_come_all_at_once_and_then_one_by_one() -> None:
    ledger, six = AdmissionControl({}), claim(requests_per_minute=6)
    assert [wait_s(ledger, six, 0) for _ in range(7)] == [0] * 6 + [10]
    assert wait_s(ledger, six, 4) == 6
    assert wait_s(ledger, six, 10) == 0
    assert wait_s(ledger, six, 10) == 10
    assert [wait_s(ledger, six, 1000) for _ in range(7)] == [0] * 6 + [10]


def test_tokens_are_claimed_first_and_settled_after() -> None:
    ledger, hundred = AdmissionControl({}), claim(tokens=40, tokens_per_minute=120)
    ledger.admit(hundred, 0)  # 80 left
    ledger.release(hundred, 40, 10)  # 110
    ledger.admit(hundred, 0)  # 70
    ledger.release(hundred, 40, 170)  # it used more than it had claimed: 60 in debt
    assert wait_s(ledger, hundred, 0) == pytest.approx(50)  # 100 tokens at 2 a second
    assert wait_s(ledger, hundred, 50) == 0


def test_a_claim_that_never_fits_waits_for_a_full_minute_only() -> None:
    ledger, large = AdmissionControl({}), claim(tokens=1000, tokens_per_minute=60)
    assert wait_s(ledger, large, 0) == 0
    ledger.release(large, 60, 60)
    assert wait_s(ledger, large, 0) == 60
    assert wait_s(ledger, large, 60) == 0


def test_a_refused_request_takes_nothing() -> None:
    ledger = AdmissionControl({"m": 10})
    both = claim(tokens=50, needs=1, requests_per_minute=2, tokens_per_minute=60)
    ledger.admit(both, 0)
    assert wait_s(ledger, both, 0) == 40  # one request is left, and 10 tokens
    assert wait_s(ledger, both, 40) == 0
    assert wait_s(ledger, claim("bob", needs=8), 40) == 0  # only two places are alice's


def test_limits_that_changed_hold_for_what_comes() -> None:
    ledger = AdmissionControl({})
    ledger.admit(claim(requests_per_minute=100), 0)
    assert [wait_s(ledger, claim(requests_per_minute=1), 0) for _ in range(2)] == [0, 60]


def test_the_message_names_the_key_the_limit_and_when() -> None:
    ledger, one = AdmissionControl({"m": 2}), claim(needs=1, requests_per_minute=1)
    ledger.admit(one, 0)
    with pytest.raises(
        OverAllowance, match=r"key 'alice': requests_per_minute is 1 here; try again in 60 s"
    ):
        ledger.admit(claim(requests_per_minute=1), 0)
    with pytest.raises(
        OverAllowance, match="holds 1 of 2 places of model 'm', and 1 are left"
    ) as error:
        ledger.admit(one, 0)
    assert error.value.model == "m"


TIMES = st.lists(st.floats(0, 30), max_size=60)


@given(TIMES, st.integers(1, 20))
def test_no_span_sees_more_requests_than_flow_in_and_a_full_bucket(
    steps: list[float], per_minute: int
) -> None:
    ledger, one = AdmissionControl({}), claim(requests_per_minute=per_minute)
    now, taken = 0.0, []
    for step in steps:
        now += step
        if wait_s(ledger, one, now) == 0:
            taken.append(now)
    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            flowed = (taken[last] - began) * per_minute / 60
            assert last - first + 1 <= per_minute + flowed + 1e-6


@given(TIMES, st.integers(1, 20), st.integers(1, 30))
def test_after_the_wait_that_is_told_a_request_is_taken(
    steps: list[float], per_minute: int, tokens: int
) -> None:
    ledger = AdmissionControl({})
    one = claim(tokens=tokens, requests_per_minute=per_minute, tokens_per_minute=4 * per_minute)
    now = 0.0
    for step in steps:
        now += step
        waits = 0
        while wait := wait_s(ledger, one, now):
            now += wait * (1 + 1e-9) + 1e-9
            waits += 1
        assert waits <= 2  # one limit can be told after the other
        ledger.release(one, min(tokens, 4 * per_minute), tokens)


class Press:
    """Keys that want places of one model all the time, and get them back in the order of a queue."""

    def __init__(self, places: int) -> None:
        self.ledger = AdmissionControl({"m": places})
        self.line: list[Demand] = []
        self.served: list[str] = []

    def ask(self, name: str) -> bool:
        wanted = claim(name, needs=1)
        taken = wait_s(self.ledger, wanted, 0) == 0
        if taken:
            self.line.append(wanted)
        return taken

    def fill(self, name: str) -> int:
        """Ask until it is refused."""
        return next(n for n in range(10**6) if not self.ask(name))

    def end_one(self) -> None:
        done = self.line.pop(0)
        self.ledger.release(done, 0, 0)
        self.served.append(done.key.name)

    def held(self, name: str) -> int:
        return sum(c.key.name == name for c in self.line)


@given(st.integers(2, 400))
def test_a_key_alone_gets_nearly_all_and_leaves_room_for_the_next(places: int) -> None:
    press = Press(places)
    got = press.fill("greedy")
    assert got == places - max(1, places // SPARE)
    assert press.ask("late")


@given(
    st.integers(20, 200),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=200),
    st.integers(1, 5),
)
def test_places_never_run_over_and_come_back(places: int, asks: list[str], every: int) -> None:
    press = Press(places)
    for n, name in enumerate(asks):
        press.ask(name)
        assert len(press.line) <= places
        if n % every == 0 and press.line:
            press.end_one()
    while press.line:
        press.end_one()
    assert press.fill("d") == places - places // SPARE


@pytest.mark.parametrize("places", [24, 68, 300])
@pytest.mark.parametrize("keys", [2, 3, 5])
def test_keys_that_press_get_equal_shares_however_loud_one_is(places: int, keys: int) -> None:
    press = Press(places)
    press.fill("0")  # it was here first, and asks ten times as often
    names = [str(n) for n in range(keys)]
    for _ in range(20 * places):
        press.end_one()
        for name in ["0"] * 10 + names[1:]:
            press.ask(name)
    settled = press.served[10 * places :]
    shares = [settled.count(name) / len(settled) for name in names]
    assert max(shares) - 1 / keys <= 0.02 + 2 / places
    assert 1 / keys - min(shares) <= 0.02 + 2 / places


def test_what_a_quiet_key_leaves_is_for_the_others() -> None:
    press = Press(90)
    for name in "abc":
        press.ask(name)
    assert press.fill("loud") == 90 - 90 // SPARE - 3


CALL = Call("one", "proposer", 30, 12, 1.0)


async def events_of(*events: Event | Exception) -> AsyncGenerator[Event]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


class TestCounted:
    ANSWER = (
        Started(1),
        ProposalDone(1, 0, "one", "text", 1.0, CALL),
        Spent(CALL),
        Answered("writer", "stop", call=CALL),
        Answered("writer", "stop"),
    )

    async def debt(self, events: AsyncGenerator[Event], leave_after: int | None = None) -> float:
        """Tokens that are gone after an answer, of a claim of 50."""
        ledger, one = AdmissionControl({}), claim(tokens=50, tokens_per_minute=1000)
        answer = admitted_events(events, ledger, one, lambda: 0.0)
        seen = 0
        try:
            async for _ in answer:
                seen += 1
                if seen == leave_after:
                    break
        except EngineError:
            pass
        await answer.aclose()
        wait = wait_s(ledger, claim(tokens=1000, tokens_per_minute=1000), 0.0)
        return round(wait * 1000 / 60, 6)

    async def test_an_answer_costs_what_its_finished_calls_used(self) -> None:
        assert await self.debt(events_of(*self.ANSWER)) == 3 * 42

    async def test_an_answer_that_fails_costs_no_more_than_that(self) -> None:
        assert await self.debt(events_of(Started(1), EngineError("it broke"))) == 0
        assert await self.debt(events_of(self.ANSWER[1], EngineError("it broke"))) == 42

    async def test_who_leaves_before_the_end_pays_the_claim_at_least(self) -> None:
        assert await self.debt(events_of(*self.ANSWER), leave_after=1) == 50
        assert await self.debt(events_of(*self.ANSWER), leave_after=3) == 84
        assert await self.debt(events_of(*self.ANSWER, *self.ANSWER), leave_after=9) == 6 * 42

    async def test_what_is_refused_is_not_begun(self) -> None:
        ledger, none = AdmissionControl({}), claim(concurrency=1)
        ledger.admit(none, 0)
        with pytest.raises(OverAllowance):
            await anext(admitted_events(events_of(ValueError("begun")), ledger, none, lambda: 0.0))
        ledger.release(none, 0, 0)
        ledger.admit(none, 0)


def alone(needs: int) -> Demand:
    return Demand(Key("all", b"", Allowance()), {"m": needs}, 10, has_rivals=False)


def test_without_rivals_all_places_are_given_out_and_then_the_models_are_overloaded() -> None:
    ledger = AdmissionControl({"m": 4})
    for _ in range(2):
        ledger.admit(alone(2), 0)
    with pytest.raises(Overloaded, match="4 of 4 places of model 'm' are taken") as refused:
        ledger.admit(alone(1), 0)
    assert not isinstance(refused.value, OverAllowance)
    ledger.release(alone(2), 0, 0)
    ledger.admit(alone(1), 0)


def test_who_wants_more_than_there_is_gets_in_when_nobody_else_is() -> None:
    ledger = AdmissionControl({"m": 4})
    ledger.admit(alone(9), 0)
    with pytest.raises(Overloaded):
        ledger.admit(alone(1), 0)
    ledger.release(alone(9), 0, 0)
    ledger.admit(alone(1), 0)


@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_answers_that_are_in_together_never_make_more_calls_than_replicas_hold(
    needed: int, each: int, replicas: int, has_rivals: bool
) -> None:
    ledger, taken = AdmissionControl({"m": each}), 0
    ledger.count({"m": replicas}, ingresses=1)
    for number in range(each * replicas + 1):
        key = Key(str(number), b"", Allowance())
        with suppress(Overloaded):
            ledger.admit(Demand(key, {"m": needed}, 10, has_rivals), 0)
            taken += 1
    assert taken == 1 or taken * needed <= each * replicas
    assert taken >= 1


def test_places_grow_and_shrink_with_the_replicas() -> None:
    ledger = AdmissionControl({"m": 2})
    ledger.count({"m": 3}, ingresses=1)
    for _ in range(6):
        ledger.admit(alone(1), 0)
    ledger.count({"m": 0}, ingresses=1)
    for _ in range(4):
        with pytest.raises(Overloaded):
            ledger.admit(alone(1), 0)
        ledger.release(alone(1), 0, 0)
    with pytest.raises(Overloaded):
        ledger.admit(alone(1), 0)
    ledger.release(alone(1), 0, 0)
    ledger.admit(alone(1), 0)


@given(st.integers(1, 100), st.integers(1, 8), st.integers(1, 8))
def test_the_ledgers_of_several_ingresses_give_out_all_there_is_and_little_more(
    each: int, replicas: int, ingresses: int
) -> None:
    given_out = 0
    for _ in range(ingresses):
        ledger = AdmissionControl({"m": each})
        ledger.count({"m": replicas}, ingresses)
        while given_out < 2 * each * replicas + ingresses:
            try:
                ledger.admit(alone(1), 0)
            except Overloaded:
                break
            given_out += 1
    assert each * replicas <= given_out < each * replicas + ingresses


def test_a_keys_limits_are_divided_among_ingresses() -> None:
    ledger, five = AdmissionControl({}), claim(concurrency=5)
    ledger.count({}, ingresses=2)
    assert [wait_s(ledger, five, 0) for _ in range(4)] == [0, 0, 0, 1]
    ledger, six = AdmissionControl({}), claim(requests_per_minute=6)
    ledger.count({}, ingresses=2)
    assert [wait_s(ledger, six, 0) for _ in range(4)] == [0, 0, 0, 20]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_an_answer_pays_what_it_used_though_an_ingress_came_or_went_meanwhile(
    before: int, after: int
) -> None:
    ledger, large = AdmissionControl({}), claim(tokens=80, tokens_per_minute=100)
    ledger.count({}, before)
    taken = ledger.admit(large, 0)
    ledger.count({}, after)
    ledger.release(large, taken, 10)
    ten_used = claim(tokens=100 // after, tokens_per_minute=100)
    missing = 100 // after - min(100 // before - 10, 100 // after)
    assert wait_s(ledger, ten_used, 0) == pytest.approx(missing * 60 / (100 // after))


def test_a_refusal_names_the_part_of_a_limit_that_is_given_out_here() -> None:
    ledger, five = AdmissionControl({}), claim(concurrency=5)
    ledger.count({}, ingresses=2)
    for _ in range(3):
        ledger.admit(five, 0)
    with pytest.raises(OverAllowance, match="3 requests are in work and concurrency is 3 here"):
        ledger.admit(five, 0)
