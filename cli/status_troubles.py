"""Finds troubles in the state of a server (`GET /v1/state`): a sentence for each. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

SLOW_FACTOR = 3.0
"""A step of an engine is a trouble once it has taken this many times as long as it takes as a rule,"""
SLOW_S = 5.0
"""and at least so many seconds."""
LONG_WAIT_S = 30.0
"""Seconds of waiting of the oldest call that are a trouble."""
OFTEN = 0.5
"""Share of the answers that miss a model, above which that is a trouble."""
FEWEST = 3
"""Fewest such answers."""
RECENT_S = 60.0
"""Seconds for which a refusal or a failure is told."""
FAILING = 2
"""Failures in a row that are a trouble."""
MORE_TIME = "it gets more time by a larger limits.quorum, limits.grace_s or limits.layer_deadline_s"
MORE_ROOM = "there is more room with a larger concurrency or limits.queue, or with more replicas"
MORE_ALLOWED = "a key's limits stand in the file of keys, and under access in the recipe"
"""What a person can do, for the troubles in which that is known."""
State = Mapping[str, Any]


def troubles(state: State, now: float) -> list[str]:
    """The troubles, the gravest first; none if all is well.

    Args:
        state: the server's report.
        now: the present time in seconds since 1970.
    """
    found = [*_engines(state), *_failing(state, now), *_dropped(state), *_full(state, now)]
    return [*found, *_over_limit(state, now), *_waits(state)]


def _engines(state: State) -> Iterator[str]:
    """Engines that have failed or hang in a step, and replicas that are not there."""
    for card in state["cards"]:
        for member in card["members"]:
            name, since, expected = member["name"], member["since_s"], member["expected_s"]
            waits = _calls(member["waiting"])
            if member["state"] == "failed":
                yield f"{name} has failed: {member['failure'] or 'nobody knows why'}; {waits}"
            elif member["state"] == "absent":
                yield f"{name} has no replica for {since:.0f} s; {waits}"
            elif expected is not None and since > max(SLOW_S, SLOW_FACTOR * expected):
                step = f"is {member['state']} for {since:.0f} s, as a rule {expected:.1f} s"
                yield f"{name} {step}; {waits}, and the whole slot waits with it"
            elif member["failure"] and member["state"] in ("not started", "stopped", "starting"):
                yield f"{name} failed and is started again: {member['failure']}; {waits}"


def _failing(state: State, now: float) -> Iterator[str]:
    """Models whose calls fail, on their own servers above all."""
    for model in state["without_card"]:
        if model["why"]:
            yield f"{model['name']} takes no calls: {model['why']}"
    for name, rates in state["rates"]["models"].items():
        last = rates["last_missing_at"]
        if rates["failing"] >= FAILING and last is not None and now - last <= RECENT_S:
            times = f"{rates['failing']} times in a row, the last time {now - last:.0f} s ago"
            why = rates["last_why"] or rates["last_cause"]
            yield f"calls of {name} fail, {times}: {why}"


def _dropped(state: State) -> Iterator[str]:
    """Models that are left out of most answers, because they are late or say nothing."""
    for name, rates in state["rates"]["models"].items():
        for cause, count in rates["dropped"].items():
            all_calls = rates["calls"] + sum(rates["dropped"].values())
            is_often = count >= FEWEST and count > OFTEN * all_calls
            if is_often and rates["failing"] < FAILING:
                share = f"{count} of its {all_calls} calls in the last minute"
                what = f"; {MORE_TIME}" if cause == "late" else ""
                yield f"{name} is left out of answers, {cause} in {share}{what}"


def _full(state: State, now: float) -> Iterator[str]:
    """Models without room for another call."""
    refused = state["rates"]["refused"].get("overloaded", 0)
    full = [each for each in state["capacity"] if each["taken"] >= each["capacity"]]
    for each in full:
        taken = f"{each['taken']} of {each['capacity']} calls are taken"
        yield f"the queue of {each['name']} is full: {taken}"
    why = _why(state, "overloaded", now)
    if refused:
        yield f"{_requests(refused)} in the last minute found no room{why}; {MORE_ROOM}"


def _over_limit(state: State, now: float) -> Iterator[str]:
    """Keys over their limits."""
    refused = state["rates"]["refused"].get("rate_limit_exceeded", 0)
    if refused:
        why = _why(state, "rate_limit_exceeded", now)
        over = f"{_requests(refused)} in the last minute were over the limits of their keys"
        yield f"{over}{why}; {MORE_ALLOWED}"


def _waits(state: State) -> Iterator[str]:
    for card in state["cards"]:
        for member in card["members"]:
            if member["waiting"] and member["oldest_wait_s"] > LONG_WAIT_S:
                waits = f"{_calls(member['waiting'])}, the oldest for {member['oldest_wait_s']:.0f} s"
                yield f"{member['name']}: {waits}; its turn is {member['turn']}"


def _why(state: State, code: str, now: float) -> str:
    """The message of the last refusal with this code, if the key may see the refusal."""
    for refusal in state["refusals"]:
        if refusal["code"] == code and refusal["why"] and now - refusal["at"] <= RECENT_S:
            return f"; the last one: {refusal['why']}"
    return ""


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _calls(count: int) -> str:
    if count == 1:
        return "1 call waits for it"
    return f"{count} calls wait for it" if count else "no call waits for it at this moment"
