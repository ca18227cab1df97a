"""What each key has in work and has used, against its allowance and its share. Pure: time is given.

One process counts for itself; of several ingresses each gives out its part of all there is. Nothing
waits here: the queues are at the models, and a request that is over a limit is refused at once with the
time after which it would not be.

Places. A model has as many as its replicas run calls, and as may wait there. An answer takes its places
of all models before it begins, so one that was let in is not refused half way, and how long it waits is
bounded by how many there are.

Shares. Where the door knows several keys, a key that wants more of them gets them up to the max-min
fair level (Bertsekas and Gallager, Data Networks, 2nd ed., 6.5.2): the most that is left for it if all
keys that hold more than that gave the rest back. One place in SPARE stays free for who comes next. So a
key alone gets nearly all, and keys that press get equal numbers, which in a queue served in order are
equal shares of its speed.
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

SPARE = 9
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request is about to take.

    needs: places of each model; tokens: its answer's max_tokens, to begin with; has_rivals: other keys
    could want these places.
    """

    key: Key
    needs: Mapping[str, int]
    tokens: int
    has_rivals: bool = True


@dataclass(slots=True)
class Bucket:
    """A token bucket: `per_minute` flow in, and never more than that lies in it. It may be in debt."""

    level: float
    at_s: float

    def wait_s(self, amount: float, per_minute: int, now: float) -> float:
        """Seconds until `amount` is there; 0 if it is. More than fits counts as what fits."""
        flowed = (now - self.at_s) * per_minute / MINUTE_S
        self.level = min(per_minute, self.level + flowed)
        self.at_s = now
        missing = min(amount, per_minute) - self.level
        return max(0.0, missing * MINUTE_S / per_minute)


@dataclass(slots=True)
class Account:
    """One key's. buckets: by the name of their limit."""

    in_work: int = 0
    buckets: dict[str, Bucket] = field(default_factory=dict)


class AdmissionControl:
    """The accounts of all keys. places: of one replica of each model."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._each = dict(places)
        self._places = dict(places)
        self._parts = 1
        self._held: dict[str, Counter[str]] = {model: Counter() for model in places}
        self._accounts: defaultdict[str, Account] = defaultdict(Account)

    def count(self, replicas: Mapping[str, int], ingresses: int) -> None:
        """So many replicas of each model run, and so many ingresses, each of which has a ledger.

        Parts are rounded up, so that all ledgers together give out a little more, never less.
        """
        self._parts = max(1, ingresses)
        for model, each in self._each.items():
            self._places[model] = self._part(each * max(1, replicas.get(model, 1)))

    def _part(self, of_all: int) -> int:
        return -(-of_all // self._parts)

    def admit(self, claim: Demand, now: float) -> int:
        """Begin a request. now: of a clock in seconds. Returns the tokens of the key's minute that it
        took.

        Raises:
            OverAllowance: it is over a limit of its key, or over its share; nothing was taken.
            Overloaded: there are no places left, whosever they are; nothing was taken.
        """
        account = self._accounts[claim.key.name]
        allowance = claim.key.allowance
        self._check_concurrency(account, claim.key)
        for model, needed in claim.needs.items():
            self._check_places(claim, model, needed)
        amounts = {"requests_per_minute": 1, "tokens_per_minute": claim.tokens}
        buckets, taken = [], dict.fromkeys(amounts, 0)
        for limit, amount in amounts.items():
            per_minute = getattr(allowance, limit)
            if per_minute is None:
                continue
            per_minute = self._part(per_minute)
            bucket = account.buckets.setdefault(limit, Bucket(per_minute, now))
            if wait_s := bucket.wait_s(amount, per_minute, now):
                raise _over(claim.key, f"{limit} is {per_minute} here", wait_s)
            taken[limit] = min(amount, per_minute)
            buckets.append((bucket, taken[limit]))
        for bucket, amount in buckets:
            bucket.level -= amount
        account.in_work += 1
        for model, needed in claim.needs.items():
            self._held[model][claim.key.name] += needed
        return taken["tokens_per_minute"]

    def release(self, claim: Demand, taken: int, used: int) -> None:
        """End a request. taken: as `admit` said; used: tokens in all."""
        account = self._accounts[claim.key.name]
        account.in_work -= 1
        for model, needed in claim.needs.items():
            self._held[model][claim.key.name] -= needed
            self._held[model] += Counter()  # forgets whoever holds none
        if claim.key.allowance.tokens_per_minute is not None:
            account.buckets["tokens_per_minute"].level -= used - taken

    def _check_concurrency(self, account: Account, key: Key) -> None:
        most = key.allowance.concurrency
        if most is not None and account.in_work >= (most := self._part(most)):
            raise _over(
                key, f"{account.in_work} requests are in work and concurrency is {most} here", 1
            )

    def _check_places(self, claim: Demand, model: str, needed: int) -> None:
        places, held, key = self._places[model], self._held[model], claim.key
        mine, free = held[key.name], places - held.total()
        if not claim.has_rivals:
            if needed > free and held.total():  # who wants more than there is gets all
                message = f"{held.total()} of {places} places of model {model!r} are taken"
                raise Overloaded(message, model=model)
            return
        others = [number for name, number in held.items() if name != key.name]
        spare = max(places // SPARE, needed)
        full = needed > free and held.total()
        if full or (mine and mine + needed > even_length([*others, places], places - spare)):
            what = f"it holds {mine} of {places} places of model {model!r}"
            raise _over(key, f"{what}, and {max(0, free)} are left for all keys", 1, model)


def _over(key: Key, why: str, wait_s: float, model: str | None = None) -> OverAllowance:
    message = f"key {key.name!r}: {why}; try again in {math.ceil(wait_s)} s"
    return OverAllowance(message, retry_after_s=wait_s, model=model)


async def admitted_events(
    events: AsyncGenerator[Event], ledger: AdmissionControl, claim: Demand, clock: Callable[[], float]
) -> AsyncGenerator[Event]:
    """The events of an answer whose claim is taken before the first and settled after the last.

    What is counted is what finished calls used. A client that leaves before the end pays what it had
    claimed at least: nobody knows what the calls that it broke off had used.

    Raises:
        OverAllowance: as `AdmissionControl.admit`, before anything is done.
    """
    taken = ledger.admit(claim, clock())
    used, least = 0, claim.tokens
    try:
        async with aclosing(events):
            async for event in events:
                call = _call_of(event)
                used += call.prompt_tokens + call.completion_tokens if call else 0
                yield event
        least = 0
    except Exception:  # ours to bear; GeneratorExit and CancelledError are the client's
        least = 0
        raise
    finally:
        ledger.release(claim, taken, max(used, least))


def _call_of(event: Event) -> Call | None:
    return event.call if isinstance(event, ProposalDone | Spent | Answered) else None
