"""Checks that a recipe's way to one answer can work with its layers and engines.

The checks work on plain data and tolerate any shape, as those of `cross_checks.py` do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from configs.methods import MOST_GUARDED, MOST_SELECTED
from configs.problem import Problem


def method_problems(recipe: dict[Any, Any]) -> Iterator[Problem]:
    """The settings of a recipe, given as plain data, with which its methods can never work."""
    layers = [_proposers(layer) for layer in _list(recipe.get("layers"))]
    counts = [_samples(proposers) for proposers in layers]
    yield from _aggregation(recipe, counts)
    yield from _sparse_layers(recipe, counts)
    yield from _exits(recipe, layers, counts)
    yield from _first_without_logprobs(recipe, layers)
    yield from _overlap(recipe)


def tells_logprobs(settings: Mapping[str, Any]) -> bool:
    """Whether the engine of a model with these settings can give log-probabilities."""
    return not (settings.get("engine") == "llamacpp" and settings.get("speculation") is not None)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _proposers(layer: Any) -> list[dict[Any, Any]]:
    return [_dict(proposer) for proposer in _list(_dict(layer).get("proposers"))]


def _samples(proposers: list[dict[Any, Any]]) -> int | None:
    """Number of proposals of a layer; None if a number of samples is no number."""
    samples = [proposer.get("samples", 1) for proposer in proposers]
    return sum(samples) if samples and all(type(n) is int for n in samples) else None


def _aggregation(recipe: dict[Any, Any], counts: list[int | None]) -> Iterator[Problem]:
    aggregator = _dict(recipe.get("aggregator"))
    method, last = aggregator.get("method", "merge"), counts[-1] if counts else None
    if method == "vote" and aggregator.get("answer") is None:
        message = "the method vote needs this key, which says where the answer stands in a proposal"
        hint = "give number, letter, boxed or {regex: EXPRESSION}"
        yield Problem(("aggregator", "answer"), f"{message}; {hint}")
    if last is None:
        return
    if method in ("select", "select_or_merge") and last > MOST_SELECTED:
        message = f"the method {method} picks among {MOST_SELECTED} proposals at most"
        hint = "give fewer samples, or take the method vote or merge"
        yield Problem(("aggregator", "method"), f"{message}, and the last layer gives {last}; {hint}")
    if aggregator.get("guard") is True and method in ("merge", "vote") and last > MOST_GUARDED:
        message = (
            f"the guard compares {MOST_GUARDED} proposals at most, and the last layer gives {last}"
        )
        hint = "give fewer samples, or leave guard out"
        yield Problem(("aggregator", "guard"), f"{message}; {hint}")


def _sparse_layers(recipe: dict[Any, Any], counts: list[int | None]) -> Iterator[Problem]:
    for n, layer in enumerate(_list(recipe.get("layers"))):
        see = _dict(layer).get("see")
        if type(see) is not int:
            continue
        if n == 0:
            message = "the first layer reads no proposals; leave see out, or give it to a later layer"
            yield Problem(("layers", n, "see"), message)
        elif (before := counts[n - 1]) is not None and see > before:
            message = f"a sample cannot read {see} proposals, because layer {n} gives {before}"
            yield Problem(("layers", n, "see"), f"{message}; give {before} at most")


def _exits(
    recipe: dict[Any, Any], layers: list[list[dict[Any, Any]]], counts: list[int | None]
) -> Iterator[Problem]:
    given = recipe.get("exit")
    if not isinstance(given, dict) or None in counts or not counts:
        return
    agree, models = given.get("agree", 2), given.get("of_models", 2)
    if type(agree) is not int or type(models) is not int:
        return
    most = max(count for count in counts if count is not None)
    if most < 2 or agree < 2:
        if most < 2:
            message = "proposals can never agree, because no layer gives more than one"
            yield Problem(("exit",), f"{message}; leave exit out, or give more proposers or samples")
        return
    if agree > most:
        message = f"{agree} proposals can never agree, because no layer gives more than {most}"
        yield Problem(("exit", "agree"), f"{message}; give {most} or less")
    if models > agree:
        message = f"{agree} proposals (agree) cannot come from {models} different models"
        yield Problem(("exit", "of_models"), f"{message}; give {agree} or less")
    different = max(len({repr(p.get("model")) for p in proposers}) for proposers in layers)
    if models > different:
        message = f"no layer has {models} different models, and the most in one layer are {different}"
        yield Problem(("exit", "of_models"), f"{message}; give {different} or less")


def _first_without_logprobs(
    recipe: dict[Any, Any], layers: list[list[dict[Any, Any]]]
) -> Iterator[Problem]:
    if not isinstance(recipe.get("first"), dict) or not layers or not layers[0]:
        return
    name = layers[0][0].get("model")
    models = _dict(recipe.get("models"))
    settings = _dict(models.get(name)) if isinstance(name, str) else {}
    if not tells_logprobs(settings):
        message = (
            f"model {name!r} is the first proposer and has speculation, so llama.cpp gives no "
            "log-probabilities that say whether this model is sure"
        )
        hint = "leave the model's speculation out, or put another proposer first"
        yield Problem(("first",), f"{message}; {hint}")


def _overlap(recipe: dict[Any, Any]) -> Iterator[Problem]:
    aggregator = _dict(recipe.get("aggregator"))
    # YAML reads `on` as true.
    if aggregator.get("overlap") not in ("on", True):
        return
    name, where = aggregator.get("model"), ("aggregator", "overlap")
    settings = _dict(_dict(recipe.get("models")).get(name)) if isinstance(name, str) else {}
    if (method := aggregator.get("method", "merge")) != "merge":
        message = f"overlap works with the method merge only, and the method is {method}"
        yield Problem(where, f"{message}; leave overlap out")
    elif settings.get("engine") == "openai_http":
        message = f"model {name!r} runs on another server, which cannot be told to read a prompt early"
        yield Problem(where, f"{message}; leave overlap out")
    elif settings.get("concurrency", 2) == 1:
        message = f"model {name!r} has a concurrency of 1, so it cannot read early beside a call"
        yield Problem(where, f"{message}; give it a concurrency of 2 or more, or leave overlap out")
    elif _fewest_replicas(settings) > 1:
        message = f"model {name!r} has several replicas, and nobody knows which of them will answer"
        yield Problem(where, f"{message}; give it one replica, or leave overlap out")


def _fewest_replicas(settings: Mapping[Any, Any]) -> int:
    replicas = settings.get("replicas", 1)
    fewest = _dict(replicas).get("min", 1) if isinstance(replicas, dict) else replicas
    return fewest if isinstance(fewest, int) else 1
