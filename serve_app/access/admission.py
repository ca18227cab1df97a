"""Whether a request may begin now: the limits of its key, and the capacity of the models.

For an operator who gives several people keys for one card: no key can crowd out the others, and a
request that has to wait is refused at once, with the time after which it may be sent again. Nothing
waits here; calls queue at the replicas of the models. All decisions are plain synchronous calls, and
time is an argument.

A request is checked in this order. It takes nothing unless it passes every check that applies.

1. Concurrency. Fewer requests of the key are in work than its allowance says.
2. Capacity. Each model can still take in as many calls as the answer makes of it at a time. A replica
   takes in the calls that it runs and those that may queue at it. The request reserves all these calls
   before it begins, so that it is not refused half way and waits no longer than a full queue lasts. A
   request for more than a model's whole capacity passes while nothing else is reserved of it.
3. Fair shares, where several keys are known. A key that has reserved some of a model's capacity may
   reserve more up to the max-min fair level (Bertsekas and Gallager, Data Networks, 2nd ed., 6.5.2):
   the most that is left for it if every key that has reserved more than that level came down to it. One
   part in SPARE_PART stays free for a key that has reserved nothing yet. So a key alone gets
   nearly all, and keys that all want more get equal numbers of calls, which in a queue served in order
   are equal shares of its speed.
4. Rates. The requests and the tokens per minute of the key, each as a token bucket. An answer is
   charged its `max_tokens` when it begins and the difference to what it used when it ends.

Each ingress is a process that decides for itself. Of several, each gives out its part of all limits and
capacities, rounded up: together they give out a little more than there is, never less.
"""

import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from configs.errors import OverAllowance, Overloaded
from serve_app.access.api_keys import Key
from serve_app.mixture.context_budget import even_length
from serve_app.mixture.events import Answered, Call, Event, ProposalDone, Spent

SPARE_PART = 9
"""One part in this many of a model's capacity is kept free for a key that comes next (rule 3)."""
MINUTE_S = 60.0
RETRY_S = 1.0
"""Seconds after which to try again when another request has to end first; nobody knows when it will."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request asks for."""

    key: Key
    calls: Mapping[str, int]
    """Most calls of each model that the answer makes at a time."""
    max_tokens: int
    """Longest answer; charged to the key's tokens per minute when the request begins."""
    shares_capacity: bool = True
    """Whether other keys are known that could want the same models, so that rule 3 applies."""


@dataclass(slots=True)
class Bucket:
    """A token bucket: it fills steadily and holds at most what flows in within a minute."""

    level: float
    """What is in it now; below 0 after an answer that used more than it was charged for."""
    filled_at_s: float
    """When `level` was last brought up to date, on the clock of the caller."""

    def refill(self, per_minute: int, now: float) -> None:
        """Adds what flowed in since the last time."""
        flowed = (now - self.filled_at_s) * per_minute / MINUTE_S
        self.level = min(per_minute, self.level + flowed)
        self.filled_at_s = now

    def wait_s(self, amount: float, per_minute: int) -> float:
        """Seconds until `amount` is in it; 0 if it is. An amount that never fits counts as full."""
        missing = min(amount, per_minute) - self.level
        return max(0.0, missing * MINUTE_S / per_minute)


@dataclass(slots=True)
class Account:
    """What one key has in work and has used."""

    in_work: int = 0
    """Requests that have begun and not ended."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """By the name of the limit: `requests_per_minute` or `tokens_per_minute`."""


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
        """By the name of the key."""

    def set_counts(self, replicas: Mapping[str, int], ingresses: int) -> None:
        """Adapts capacities and limits to what runs now.

        Args:
            replicas: of each model; one that is missing or has none counts as one replica.
            ingresses: how many of them divide the capacity and the limits, this one among them.
        """
        self._ingresses = max(1, ingresses)
        for model, capacity in self._capacity_per_replica.items():
            self._capacity[model] = self._own_part(capacity * max(1, replicas.get(model, 1)))

    def _own_part(self, whole: int) -> int:
        return math.ceil(whole / self._ingresses)

    def admit(self, demand: Demand, now: float) -> int:
        """Begins a request. `release` has to end it.

        Args:
            now: seconds on any steady clock, always the same one.

        Returns:
            The tokens that were charged to the key's minute.

        Raises:
            OverAllowance: the key is over a limit or its fair share; nothing was taken.
            Overloaded: a model has no capacity left for anybody; nothing was taken.
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
        """Ends a request that was admitted.

        Args:
            charged: the tokens that `admit` returned.
            used: all tokens of its calls, prompts among them.
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
                message = f"model {model!r} has no room for {calls} more call(s)"
                raise Overloaded(f"{message}: {taken} of {capacity} are taken", model=model)
            return
        if is_full or (own > 0 and own + calls > self._fair_level(key, model, calls)):  # 2 or 3
            why = f"it holds {own} of {capacity} calls of model {model!r}"
            left = max(0, capacity - taken)
            raise _over(key, f"{why}, and {left} are left for all keys", RETRY_S, model)

    def _fair_level(self, key: Key, model: str, calls: int) -> int:
        """Most calls of a model that a key may have reserved (rule 3).

        Args:
            calls: of the request that is checked; at least as many stay free for another key's.
        """
        capacity = self._capacity[model]
        others = [own for name, own in self._reserved[model].items() if name != key.name]
        spare = max(capacity // SPARE_PART, calls)
        return even_length([*others, capacity], capacity - spare)

    def _require_rates(self, account: Account, demand: Demand, now: float) -> dict[str, int]:
        """What the request is charged, by the name of the limit, for each limit that the key has."""
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


def _over(key: Key, why: str, wait_s: float, model: str | None = None) -> OverAllowance:
    message = f"key {key.name!r}: {why}; try again in {math.ceil(wait_s)} s"
    return OverAllowance(message, retry_after_s=wait_s, model=model)


async def admitted_events(
    events: AsyncGenerator[Event],
    admission: AdmissionControl,
    demand: Demand,
    clock: Callable[[], float],
) -> AsyncGenerator[Event]:
    """The events of an answer, whose request is admitted before the first and released after the last.

    The key pays for the calls that finished. A client that leaves before the end pays the answer's
    `max_tokens` at least, because nobody knows what the calls that it broke off had used.

    Raises:
        OverAllowance, Overloaded: as `AdmissionControl.admit`; the answer is not begun.
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
    return event.call if isinstance(event, ProposalDone | Spent | Answered) else None
