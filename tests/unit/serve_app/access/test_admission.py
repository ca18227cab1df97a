"""Limits of keys, capacity of models and fair shares; the tests give the time."""

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.access import Allowance
from configs.errors import EngineError, OverAllowance, Overloaded
from serve_app.access.admission import (
    SPARE_PART,
    AdmissionControl,
    Demand,
    admitted_events,
)
from serve_app.access.api_keys import Key
from serve_app.mixture.events import Answered, Call, Event, ProposalDone, Spent, Started


def demand(name: str = "alice", tokens: int = 10, calls: int = 0, **allowance: Any) -> Demand:
    """A request of a key.

    Args:
        name: of the key.
        tokens: its `max_tokens`.
        calls: what it makes of model `m` at a time.
        allowance: the limits of the key.
    """
    key = Key(name, b"", Allowance(**allowance))
    return Demand(key, {"m": calls} if calls else {}, tokens)


def wait_s(control: AdmissionControl, request: Demand, now: float) -> float:
    """The seconds after which a refused request may come again; 0 if it was admitted."""
    try:
        control.admit(request, now)
    except OverAllowance as error:
        return error.retry_after_s
    return 0


def test_concurrency_is_refused_at_once_until_one_ends() -> None:
    control, two = AdmissionControl({}), demand(concurrency=2)
    assert [wait_s(control, two, 0) for _ in range(3)] == [0, 0, 1]
    control.release(two, 0, 0)
    assert wait_s(control, two, 0) == 0
    assert wait_s(control, demand("bob", concurrency=2), 0) == 0


def test_requests_may_come_all_at_once_and_then_one_by_one() -> None:
    control, six = AdmissionControl({}), demand(requests_per_minute=6)
    assert [wait_s(control, six, 0) for _ in range(7)] == [0] * 6 + [10]
    assert wait_s(control, six, 4) == 6
    assert wait_s(control, six, 10) == 0
    assert wait_s(control, six, 10) == 10
    assert [wait_s(control, six, 1000) for _ in range(7)] == [0] * 6 + [10]


def test_max_tokens_are_charged_first_and_what_was_used_after() -> None:
    control, hundred = AdmissionControl({}), demand(tokens=40, tokens_per_minute=120)
    control.admit(hundred, 0)  # 80 left
    control.release(hundred, 40, 10)  # 110
    control.admit(hundred, 0)  # 70
    control.release(hundred, 40, 170)  # it used more than it was charged: 60 in debt
    assert wait_s(control, hundred, 0) == pytest.approx(50)  # 100 tokens at 2 a second
    assert wait_s(control, hundred, 50) == 0


def test_an_answer_that_never_fits_waits_for_a_full_minute_only() -> None:
    control, large = AdmissionControl({}), demand(tokens=1000, tokens_per_minute=60)
    assert wait_s(control, large, 0) == 0
    control.release(large, 60, 60)
    assert wait_s(control, large, 0) == 60
    assert wait_s(control, large, 60) == 0


def test_a_refused_request_takes_nothing() -> None:
    control = AdmissionControl({"m": 10})
    both = demand(tokens=50, calls=1, requests_per_minute=2, tokens_per_minute=60)
    control.admit(both, 0)
    assert wait_s(control, both, 0) == 40  # one request is left, and 10 tokens
    assert wait_s(control, both, 40) == 0
    assert wait_s(control, demand("bob", calls=8), 40) == 0  # alice has only two calls


def test_a_changed_limit_holds_from_the_next_request_on() -> None:
    control = AdmissionControl({})
    control.admit(demand(requests_per_minute=100), 0)
    assert [wait_s(control, demand(requests_per_minute=1), 0) for _ in range(2)] == [0, 60]


def test_the_message_names_the_key_the_limit_and_when() -> None:
    control, one = AdmissionControl({"m": 2}), demand(calls=1, requests_per_minute=1)
    control.admit(one, 0)
    with pytest.raises(
        OverAllowance, match=r"key 'alice': requests_per_minute is 1 here; try again in 60 s"
    ):
        control.admit(demand(requests_per_minute=1), 0)
    with pytest.raises(
        OverAllowance, match="it holds 1 of 2 calls of model 'm', and 1 are left for all keys"
    ) as error:
        control.admit(one, 0)
    assert error.value.model == "m"


TIMES = st.lists(st.floats(0, 30), max_size=60)


@settings(deadline=None)
@given(TIMES, st.integers(1, 20))
def test_no_span_sees_more_requests_than_flow_in_and_a_full_bucket(
    steps: list[float], per_minute: int
) -> None:
    control, one = AdmissionControl({}), demand(requests_per_minute=per_minute)
    now, admitted = 0.0, []
    for step in steps:
        now += step
        if wait_s(control, one, now) == 0:
            admitted.append(now)
    for first, began in enumerate(admitted):
        for last in range(first, len(admitted)):
            flowed = (admitted[last] - began) * per_minute / 60
            assert last - first + 1 <= per_minute + flowed + 1e-6


@settings(deadline=None)
@given(TIMES, st.integers(1, 20), st.integers(1, 30))
def test_after_the_wait_that_a_refusal_names_the_request_is_admitted(
    steps: list[float], per_minute: int, tokens: int
) -> None:
    control = AdmissionControl({})
    one = demand(tokens=tokens, requests_per_minute=per_minute, tokens_per_minute=4 * per_minute)
    now = 0.0
    for step in steps:
        now += step
        waits = 0
        while wait := wait_s(control, one, now):
            now += wait * (1 + 1e-9) + 1e-9
            waits += 1
        assert waits <= 2  # one refusal for each limit
        control.release(one, min(tokens, 4 * per_minute), tokens)


class Press:
    """Keys that always want more of one model. The requests end in the order in which they began."""

    def __init__(self, capacity: int) -> None:
        self.control = AdmissionControl({"m": capacity})
        self.running: list[Demand] = []
        self.served: list[str] = []
        """The key's name of each request that has ended."""

    def ask(self, name: str) -> bool:
        """Whether a request of a key is admitted."""
        request = demand(name, calls=1)
        admitted = wait_s(self.control, request, 0) == 0
        if admitted:
            self.running.append(request)
        return admitted

    def fill(self, name: str) -> int:
        """Sends requests of a key until it is refused; returns how many were admitted."""
        return next(n for n in range(10**6) if not self.ask(name))

    def end_one(self) -> None:
        """Ends the oldest request."""
        done = self.running.pop(0)
        self.control.release(done, 0, 0)
        self.served.append(done.key.name)


@settings(deadline=None)
@given(st.integers(2, 400))
def test_a_key_alone_gets_nearly_all_and_leaves_room_for_the_next(capacity: int) -> None:
    press = Press(capacity)
    assert press.fill("greedy") == capacity - max(1, capacity // SPARE_PART)
    assert press.ask("late")


@settings(deadline=None)
@given(
    st.integers(20, 200),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=200),
    st.integers(1, 5),
)
def test_no_more_is_reserved_than_there_is_and_all_of_it_comes_back(
    capacity: int, asks: list[str], every: int
) -> None:
    press = Press(capacity)
    for n, name in enumerate(asks):
        press.ask(name)
        assert len(press.running) <= capacity
        if n % every == 0 and press.running:
            press.end_one()
    while press.running:
        press.end_one()
    assert press.fill("d") == capacity - capacity // SPARE_PART


@pytest.mark.parametrize("capacity", [24, 68, 300])
@pytest.mark.parametrize("keys", [2, 3, 5])
def test_keys_that_press_get_equal_shares_however_loud_one_is(capacity: int, keys: int) -> None:
    press = Press(capacity)
    press.fill("0")  # the first key begins alone, and asks ten times as often
    names = [str(n) for n in range(keys)]
    for _ in range(20 * capacity):
        press.end_one()
        for name in ["0"] * 10 + names[1:]:
            press.ask(name)
    settled = press.served[10 * capacity :]
    shares = [settled.count(name) / len(settled) for name in names]
    assert max(shares) - 1 / keys <= 0.02 + 2 / capacity
    assert 1 / keys - min(shares) <= 0.02 + 2 / capacity


def test_what_quiet_keys_leave_is_for_the_others() -> None:
    press = Press(90)
    for name in "abc":
        press.ask(name)
    assert press.fill("loud") == 90 - 90 // SPARE_PART - 3


CALL = Call("one", "proposer", 30, 12, 1.0)


async def events_of(*events: Event | Exception) -> AsyncGenerator[Event]:
    for event in events:
        if isinstance(event, Exception):
            raise event
        yield event


class TestAdmittedEvents:
    ANSWER = (
        Started(1),
        ProposalDone(1, 0, "one", "text", 1.0, CALL),
        Spent(CALL),
        Answered("writer", "stop", call=CALL),
        Answered("writer", "stop"),
    )

    async def debt(self, events: AsyncGenerator[Event], leave_after: int | None = None) -> float:
        """Tokens that a key has paid after an answer of at most 50."""
        control, one = AdmissionControl({}), demand(tokens=50, tokens_per_minute=1000)
        answer = admitted_events(events, control, one, lambda: 0.0)
        seen = 0
        try:
            async for _ in answer:
                seen += 1
                if seen == leave_after:
                    break
        except EngineError:
            pass
        await answer.aclose()
        wait = wait_s(control, demand(tokens=1000, tokens_per_minute=1000), 0.0)
        return round(wait * 1000 / 60, 6)

    async def test_an_answer_costs_what_its_finished_calls_used(self) -> None:
        assert await self.debt(events_of(*self.ANSWER)) == 3 * 42

    async def test_an_answer_that_fails_costs_no_more_than_that(self) -> None:
        assert await self.debt(events_of(Started(1), EngineError("it broke"))) == 0
        assert await self.debt(events_of(self.ANSWER[1], EngineError("it broke"))) == 42

    async def test_a_client_that_leaves_before_the_end_pays_max_tokens_at_least(self) -> None:
        assert await self.debt(events_of(*self.ANSWER), leave_after=1) == 50
        assert await self.debt(events_of(*self.ANSWER), leave_after=3) == 84
        assert await self.debt(events_of(*self.ANSWER, *self.ANSWER), leave_after=9) == 6 * 42

    async def test_a_refused_answer_is_not_begun(self) -> None:
        control, one = AdmissionControl({}), demand(concurrency=1)
        control.admit(one, 0)
        with pytest.raises(OverAllowance):
            await anext(admitted_events(events_of(ValueError("begun")), control, one, lambda: 0.0))
        control.release(one, 0, 0)
        control.admit(one, 0)


def alone(calls: int) -> Demand:
    """A request where no other key is known."""
    return Demand(Key("all", b"", Allowance()), {"m": calls}, 10, shares_capacity=False)


def test_without_other_keys_all_capacity_is_given_out_and_then_the_model_is_overloaded() -> None:
    control = AdmissionControl({"m": 4})
    for _ in range(2):
        control.admit(alone(2), 0)
    message = r"model 'm' has no room for another call: 4 of 4 are taken"
    with pytest.raises(Overloaded, match=message) as refused:
        control.admit(alone(1), 0)
    assert not isinstance(refused.value, OverAllowance)
    control.release(alone(2), 0, 0)
    control.admit(alone(1), 0)


def test_a_request_for_more_than_all_is_admitted_while_there_is_no_other() -> None:
    control = AdmissionControl({"m": 4})
    control.admit(alone(9), 0)
    with pytest.raises(Overloaded):
        control.admit(alone(1), 0)
    control.release(alone(9), 0, 0)
    control.admit(alone(1), 0)


def test_beside_a_request_for_more_than_all_none_is_left() -> None:
    control = AdmissionControl({"m": 4})
    control.admit(demand("alice", calls=9), 0)
    with pytest.raises(OverAllowance, match="it holds 0 of 4 calls of model 'm', and 0 are left"):
        control.admit(demand("bob", calls=1), 0)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_admitted_answers_never_make_more_calls_than_replicas_take_in(
    calls: int, each: int, replicas: int, shares_capacity: bool
) -> None:
    control, admitted = AdmissionControl({"m": each}), 0
    control.set_counts({"m": replicas}, ingresses=1)
    for number in range(each * replicas + 1):
        key = Key(str(number), b"", Allowance())
        with suppress(Overloaded):
            control.admit(Demand(key, {"m": calls}, 10, shares_capacity), 0)
            admitted += 1
    assert admitted == 1 or admitted * calls <= each * replicas
    assert admitted >= 1


def test_capacity_grows_and_shrinks_with_the_replicas() -> None:
    control = AdmissionControl({"m": 2})
    control.set_counts({"m": 3}, ingresses=1)
    for _ in range(6):
        control.admit(alone(1), 0)
    control.set_counts({"m": 0}, ingresses=1)
    for _ in range(4):
        with pytest.raises(Overloaded):
            control.admit(alone(1), 0)
        control.release(alone(1), 0, 0)
    with pytest.raises(Overloaded):
        control.admit(alone(1), 0)
    control.release(alone(1), 0, 0)
    control.admit(alone(1), 0)


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 8), st.integers(1, 8))
def test_several_ingresses_together_give_out_all_there_is_and_little_more(
    each: int, replicas: int, ingresses: int
) -> None:
    given_out = 0
    for _ in range(ingresses):
        control = AdmissionControl({"m": each})
        control.set_counts({"m": replicas}, ingresses)
        while given_out < 2 * each * replicas + ingresses:
            try:
                control.admit(alone(1), 0)
            except Overloaded:
                break
            given_out += 1
    assert each * replicas <= given_out < each * replicas + ingresses


def test_a_keys_limits_are_divided_among_ingresses() -> None:
    control, five = AdmissionControl({}), demand(concurrency=5)
    control.set_counts({}, ingresses=2)
    assert [wait_s(control, five, 0) for _ in range(4)] == [0, 0, 0, 1]
    control, six = AdmissionControl({}), demand(requests_per_minute=6)
    control.set_counts({}, ingresses=2)
    assert [wait_s(control, six, 0) for _ in range(4)] == [0, 0, 0, 20]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_an_answer_pays_what_it_used_though_an_ingress_came_or_went_meanwhile(
    before: int, after: int
) -> None:
    control, large = AdmissionControl({}), demand(tokens=80, tokens_per_minute=100)
    control.set_counts({}, before)
    charged = control.admit(large, 0)
    control.set_counts({}, after)
    control.release(large, charged, 10)
    ten_used = demand(tokens=100 // after, tokens_per_minute=100)
    missing = 100 // after - min(100 // before - 10, 100 // after)
    assert wait_s(control, ten_used, 0) == pytest.approx(missing * 60 / (100 // after))


def test_a_refusal_names_the_part_of_a_limit_that_is_given_out_here() -> None:
    control, five = AdmissionControl({}), demand(concurrency=5)
    control.set_counts({}, ingresses=2)
    for _ in range(3):
        control.admit(five, 0)
    with pytest.raises(OverAllowance, match="3 requests are in work and concurrency is 3 here"):
        control.admit(five, 0)
