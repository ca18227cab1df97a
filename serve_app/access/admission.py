"""Decides whether a request may begin now: by the limits of its key and the capacity of the models.

An operator may give several people keys for one card. No key can crowd out the others. A request that
would have to wait is refused at once, and the refusal says when the client may try again. Nothing waits
in this file: calls queue at the replicas of the models. All decisions are plain synchronous calls, and
the time is an argument.

A request has to pass these checks, in this order. A request that fails a check takes nothing.

1. Concurrency. The key has fewer requests in work than its allowance says.
2. Capacity. Each model has room for all calls that the answer makes to the model at a time. The
   capacity of a model is the number of calls that its replicas can run, plus the number that may queue
   at the replicas. A request reserves its calls before it begins. So the request is not refused half
   way, and its calls wait no longer than a full queue lasts. A request that needs more than the whole
   capacity of a model passes while no other request has reserved any of it.
3. Fair shares, where several keys are known. A key that has reserved calls of a model may hold calls up
   to the max-min fair level (Bertsekas and Gallager, Data Networks, 2nd ed., 6.5.2). The level is the
   largest n for which n calls of this key fit beside the calls of the other keys, where each other key
   counts with at most n calls. 1/SPARE_PART of the capacity stays free for a key that has reserved
   nothing yet. So a key alone gets nearly the whole capacity. Keys that all want more get equal numbers
   of calls. In a queue that is served in order, equal numbers of calls are equal shares of the speed.
4. Rates. The requests per minute and the tokens per minute of the key are two token buckets. An answer
   is charged its `max_tokens` when it begins. When the answer ends, the charge is corrected to the
   tokens that it used.

Each ingress is a process that decides for itself. If there are several ingresses, each gives out its
part of all limits and capacities, rounded up. Together they give out a little more than there is, never
less.
"""

import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from configs.errors import OverAllowance, Overloaded
from configs.schema import Recipe
from serve_app.access.api_keys import Key
from serve_app.mixture.context_budget import even_length
from serve_app.mixture.events import Answered, Call, Event, Judged, ProposalDone, Spent

SPARE_PART = 9
"""1/SPARE_PART of a model's capacity stays free for a key that has reserved nothing yet (check 3)."""
MINUTE_S = 60.0
RETRY_S = 1.0
"""Seconds after which a client may try again if another request has to end first. The number is a
guess, because nobody knows when that request will end."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request asks for."""

    key: Key
    calls: Mapping[str, int]
    """The most calls that the answer makes to a model at a time, by the name of the model."""
    max_tokens: int
    """Most tokens of the answer; charged to the key's tokens per minute when the request begins."""
    shares_capacity: bool = True
    """Whether other keys that could want the same models are known. If so, check 3 applies."""


@dataclass(slots=True)
class Bucket:
    """A token bucket for one limit. The bucket fills steadily and holds at most a minute's inflow."""

    level: float
    """The requests or tokens in the bucket now; below 0 after an answer that used more tokens than it
    was charged at its start."""
    filled_at_s: float
    """When `level` was last brought up to date, in seconds on the caller's clock."""

    def refill(self, per_minute: int, now: float) -> None:
        """Add what flowed in since the last refill."""
        flowed = (now - self.filled_at_s) * per_minute / MINUTE_S
        self.level = min(per_minute, self.level + flowed)
        self.filled_at_s = now

    def wait_s(self, amount: float, per_minute: int) -> float:
        """Seconds until the bucket holds `amount`; 0 if the bucket holds `amount` now.

        An amount that is too large for the bucket counts as a full bucket.
        """
        missing = min(amount, per_minute) - self.level
        return max(0.0, missing * MINUTE_S / per_minute)


@dataclass(slots=True)
class Account:
    """The requests that one key has in work, and what the key may still use in this minute."""

    in_work: int = 0
    """Requests that have begun and not ended."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """The key's buckets by the name of their limit: `requests_per_minute` or `tokens_per_minute`."""


class AdmissionControl:
    """Admits or refuses the requests of all keys.

    Args:
        capacity_per_replica: calls that one replica of each model takes in, running or queued.
    """

    def __init__(self, capacity_per_replica: Mapping[str, int]) -> None:
        self._capacity_per_replica = dict(capacity_per_replica)
        self._capacity = dict(capacity_per_replica)
        """This ingress's part of the capacity of each model."""
        self._ingresses = 1
        self._reserved: dict[str, Counter[str]] = {model: Counter() for model in capacity_per_replica}
        """Calls of each model that each key has reserved, by model and by the name of the key."""
        self._accounts: defaultdict[str, Account] = defaultdict(Account)
        """The account of each key, by the name of the key."""

    @property
    def in_work(self) -> int:
        """Number of requests that have begun and not ended, of all keys together."""
        return sum(account.in_work for account in self._accounts.values())

    def room(self) -> dict[str, tuple[int, int]]:
        """For each model, the calls that are reserved, and this ingress's part of the capacity."""
        return {
            model: (self._reserved[model].total(), capacity)
            for model, capacity in self._capacity.items()
        }

    def set_counts(self, replicas: Mapping[str, int], ingresses: int) -> None:
        """Adapt the capacities and limits of this ingress to what runs now.

        Args:
            replicas: the number of replicas that run, by model. A model without replicas is counted
                with one replica.
            ingresses: the number of ingresses that divide the capacity and the limits, this ingress
                included.
        """
        self._ingresses = max(1, ingresses)
        for model, capacity in self._capacity_per_replica.items():
            self._capacity[model] = self._own_part(capacity * max(1, replicas.get(model, 1)))

    def _own_part(self, whole: int) -> int:
        return math.ceil(whole / self._ingresses)

    def admit(self, demand: Demand, now: float) -> int:
        """Begin a request. The caller has to end the request with `release`.

        Args:
            demand: what the request asks for.
            now: seconds on a steady clock; all calls have to use the same clock.

        Returns:
            The tokens that were charged to the key's tokens per minute; 0 if the key has no such limit.

        Raises:
            OverAllowance: the key is over a limit or its fair share, or a model is full and
                `demand.shares_capacity` is true. Nothing was taken.
            Overloaded: a model is full and `demand.shares_capacity` is false. Nothing was taken.
        """
        account = self._accounts[demand.key.name]
        self._require_concurrency(account, demand.key)  # 1
        for model, calls in demand.calls.items():
            self._require_capacity(demand, model, calls)  # 2 and 3
        charges = self._require_rates(account, demand, now)  # 4
        for limit, amount in charges.items():
            account.buckets[limit].level -= amount
        account.in_work += 1
        for model, calls in demand.calls.items():
            self._reserved[model][demand.key.name] += calls
        return charges.get("tokens_per_minute", 0)

    def release(self, demand: Demand, charged: int, used: int) -> None:
        """End a request that was admitted.

        Args:
            demand: the same demand that `admit` got.
            charged: the tokens that `admit` returned.
            used: all tokens of the request's calls, prompts included.
        """
        account = self._accounts[demand.key.name]
        account.in_work -= 1
        for model, calls in demand.calls.items():
            self._reserved[model][demand.key.name] -= calls
            self._reserved[model] += Counter()  # drops the keys that have nothing reserved
        if demand.key.allowance.tokens_per_minute is not None:
            account.buckets["tokens_per_minute"].level -= used - charged

    def _require_concurrency(self, account: Account, key: Key) -> None:
        most = key.allowance.concurrency
        if most is not None and account.in_work >= (most := self._own_part(most)):
            why = f"{account.in_work} requests are in work and concurrency is {most} here"
            raise _over(key, why, RETRY_S)

    def _require_capacity(self, demand: Demand, model: str, calls: int) -> None:
        capacity, reserved, key = self._capacity[model], self._reserved[model], demand.key
        taken, own = reserved.total(), reserved[key.name]
        is_full = taken > 0 and taken + calls > capacity
        if not demand.shares_capacity:
            if is_full:  # 2
                wanted = "another call" if calls == 1 else f"{calls} more calls"
                message = f"model {model!r} has no room for {wanted}"
                raise Overloaded(f"{message}: {taken} of {capacity} are taken", model=model)
            return
        if is_full or (own > 0 and own + calls > self._fair_level(key, model, calls)):  # 2 or 3
            why = f"it holds {own} of {capacity} calls of model {model!r}"
            left = max(0, capacity - taken)
            raise _over(key, f"{why}, and {left} are left for all keys", RETRY_S, model)

    def _fair_level(self, key: Key, model: str, calls: int) -> int:
        """The most calls of a model that a key may have reserved (check 3).

        Args:
            key: the key of the request that is checked.
            model: the model.
            calls: the calls that the request needs. At least as many stay free for another key.
        """
        capacity = self._capacity[model]
        others = [own for name, own in self._reserved[model].items() if name != key.name]
        spare = max(capacity // SPARE_PART, calls)
        return even_length([*others, capacity], capacity - spare)

    def _require_rates(self, account: Account, demand: Demand, now: float) -> dict[str, int]:
        """The amount that the request is charged, by the name of the limit, for each limit of the key.

        Raises:
            OverAllowance: a bucket holds less than the amount.
        """
        charges: dict[str, int] = {}
        amounts = {"requests_per_minute": 1, "tokens_per_minute": demand.max_tokens}
        for limit, amount in amounts.items():
            per_minute = getattr(demand.key.allowance, limit)
            if per_minute is None:
                continue
            per_minute = self._own_part(per_minute)
            bucket = account.buckets.setdefault(limit, Bucket(per_minute, now))
            bucket.refill(per_minute, now)
            if wait_s := bucket.wait_s(amount, per_minute):
                raise _over(demand.key, f"{limit} is {per_minute} here", wait_s)
            charges[limit] = min(amount, per_minute)
        return charges


def admission_for(recipe: Recipe) -> AdmissionControl:
    """The admission control of a recipe's models. Each model counts with its fewest replicas, and the
    ingress with one, until `set_counts` says otherwise."""
    capacities = {name: recipe.capacity_per_replica(name) for name in recipe.models}
    admission = AdmissionControl(capacities)
    admission.set_counts({name: model.replicas.min for name, model in recipe.models.items()}, 1)
    return admission


def _over(key: Key, why: str, wait_s: float, model: str | None = None) -> OverAllowance:
    message = f"key {key.name!r}: {why}; try again in {math.ceil(wait_s)} s"
    return OverAllowance(message, retry_after_s=wait_s, model=model)


async def admitted_events(
    events: AsyncGenerator[Event],
    admission: AdmissionControl,
    demand: Demand,
    clock: Callable[[], float],
) -> AsyncGenerator[Event]:
    """Admit a request, pass on the events of its answer, and release the request at the end.

    The key is charged the tokens of the calls that finished. If the client leaves before the end, the
    key is charged at least the answer's `max_tokens`, because nobody knows how many tokens the
    unfinished calls had used. If the answer fails, there is no such minimum.

    Args:
        events: the events of the answer; the work on the answer begins with the first event.
        admission: admits the request before the first event is asked for.
        demand: what the request asks for.
        clock: gives the time in seconds for `AdmissionControl.admit`.

    Raises:
        OverAllowance, Overloaded: `AdmissionControl.admit` refused the request; no event was asked for.
    """
    charged = admission.admit(demand, clock())
    used, least = 0, demand.max_tokens
    try:
        async with aclosing(events):
            async for event in events:
                call = _finished_call(event)
                used += call.prompt_tokens + call.completion_tokens if call else 0
                yield event
        least = 0
    except Exception:  # our failure; GeneratorExit and CancelledError are a client that left
        least = 0
        raise
    finally:
        admission.release(demand, charged, max(used, least))


def _finished_call(event: Event) -> Call | None:
    return event.call if isinstance(event, ProposalDone | Spent | Judged | Answered) else None
