"""Checks that two settings of a recipe do not contradict each other.

The checks work on plain data and tolerate any shape, so that `slimmoa check` can report a misspelt key
and an unknown model in one go. The schema checks the shape.
"""

from collections.abc import Iterator
from string import Formatter
from typing import Any

from configs.extra_parameters import KNOWN, ExtraParameters
from configs.known_keys import nearest
from configs.method_checks import method_problems
from configs.problem import Problem, Where
from configs.sampling import DEFAULTS

ANY = frozenset(ExtraParameters.model_fields)


def inconsistencies(recipe: Any) -> list[Problem]:
    """All contradictions in a recipe that is given as plain data, as read from YAML or dumped."""
    if not isinstance(recipe, dict):
        return []
    rules = (
        _unknown_models,
        _unknown_allowed_models,
        _unknown_routed_models,
        _answers_without_room,
        _unknown_extra,
        _quantized_values_without_flash_attention,
        _clashing_names,
        _clashing_adapters,
        _impossible_quorum,
        _deadlines_without_rest,
        _bad_references,
        method_problems,
    )
    return [problem for rule in rules for problem in rule(recipe)]


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _proposers(recipe: dict[Any, Any]) -> Iterator[tuple[int, int, dict[Any, Any]]]:
    for n, layer in enumerate(_sequence(recipe.get("layers"))):
        for m, proposer in enumerate(_sequence(_mapping(layer).get("proposers"))):
            yield n, m, _mapping(proposer)


def _uses(recipe: dict[Any, Any]) -> Iterator[tuple[Where, Any, Where, Any]]:
    """Each use of a model in layers and aggregator: where the model is named, the name, where its
    sampling stands, and the sampling."""
    for n, m, proposer in _proposers(recipe):
        path: Where = ("layers", n, "proposers", m)
        where, sampling = (*path, "sampling"), proposer.get("sampling")
        yield (*path, "model"), proposer.get("model"), where, sampling
    aggregator = _mapping(recipe.get("aggregator"))
    where, sampling = ("aggregator", "sampling"), aggregator.get("sampling")
    yield ("aggregator", "model"), aggregator.get("model"), where, sampling
    for n, name in enumerate(_sequence(aggregator.get("fallbacks"))):
        yield ("aggregator", "fallbacks", n), name, where, sampling


def _adapters(recipe: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """The name of each adapter, and that of its model."""
    for model, settings in _mapping(recipe.get("models")).items():
        yield from ((name, model) for name in _mapping(_mapping(settings).get("adapters")))


def _names(recipe: dict[Any, Any]) -> dict[Any, Any]:
    """The settings behind every name that can be asked: an adapter has those of its model."""
    models = _mapping(recipe.get("models"))
    return {**{name: models[model] for name, model in _adapters(recipe)}, **models}


def _clashing_adapters(recipe: dict[Any, Any]) -> Iterator[Problem]:
    taken = [recipe.get("name"), *_mapping(recipe.get("models"))]
    for name, model in _adapters(recipe):
        if name in taken:
            where: Where = ("models", model, "adapters", name)
            yield Problem(
                where, f"another model or adapter is called {name!r}; give this one another name"
            )
        taken.append(name)


def _unknown_models(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _names(recipe)
    for where, name, _, _ in _uses(recipe):
        if isinstance(name, str) and name not in models:
            yield _unknown(where, name, models)


def _unknown(where: Where, name: str, models: dict[Any, Any]) -> Problem:
    known = ", ".join(map(str, models)) or "none"
    close = nearest(name, [each for each in models if isinstance(each, str)])
    hint = f"; did you mean {close}?" if close else "; add it to models, or name one of these"
    return Problem(where, f"{name!r} is not a model of this recipe (it has: {known}){hint}")


def _unknown_routed_models(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _names(recipe)
    for n, route in enumerate(_sequence(recipe.get("routes"))):
        name = _mapping(route).get("model")
        if isinstance(name, str) and name not in models and name != recipe.get("name"):
            yield _unknown(("routes", n, "model"), name, models)


def _unknown_allowed_models(recipe: dict[Any, Any]) -> Iterator[Problem]:
    known = [recipe.get("name"), *_names(recipe)]
    allowance = _mapping(_mapping(recipe.get("access")).get("allowance"))
    for n, name in enumerate(_sequence(allowance.get("models"))):
        if isinstance(name, str) and name not in known:
            message = f"this recipe serves no model {name!r}; it serves {', '.join(map(str, known))}"
            yield Problem(("access", "allowance", "models", n), message)


def _answers_without_room(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _names(recipe)
    for _, name, where, sampling in _uses(recipe):
        model = _mapping(models.get(name)) if isinstance(name, str) else {}
        context, most = model.get("context_tokens"), _mapping(sampling).get("max_tokens")
        if most is None:
            most = DEFAULTS["max_tokens"]
        thinking = _mapping(sampling).get("thinking_tokens")
        of = "answer"
        if isinstance(thinking, int) and isinstance(most, int) and thinking:
            most, of = most + thinking, "answer and reasoning"
        if isinstance(context, int) and isinstance(most, int) and most >= context:
            message = f"{most} tokens of {of} leave a prompt no room in model {name!r}, which holds"
            hint = f"{context} (context_tokens); set max_tokens to about {max(1, context // 4)}"
            yield Problem(
                (*where, "max_tokens"), f"{message} {hint}, or context_tokens to {4 * most} or more"
            )


def _unknown_extra(recipe: dict[Any, Any]) -> Iterator[Problem]:
    models = _mapping(recipe.get("models"))
    for _, name, where, sampling in _uses(recipe):
        model = _mapping(models.get(name)) if isinstance(name, str) else {}
        engine = model.get("engine")
        for parameter in _mapping(_mapping(sampling).get("extra")):
            if engine in KNOWN and parameter in ANY and parameter not in KNOWN[engine]:
                known = ", ".join(sorted(KNOWN[engine])) or "none"
                message = f"the engine {engine!r} of model {name!r} does not take this parameter"
                yield Problem((*where, "extra", parameter), f"{message}; it takes {known}")


def _quantized_values_without_flash_attention(recipe: dict[Any, Any]) -> Iterator[Problem]:
    for name, model in _mapping(recipe.get("models")).items():
        types = _mapping(model).get("kv_cache_type")
        values = types.get("v") if isinstance(types, dict) else types
        # YAML reads `off` as false.
        if _mapping(model).get("flash_attention") not in ("off", False) or not isinstance(values, str):
            continue
        if values not in ("f32", "f16", "bf16"):
            message = (
                f"this cannot be off, because values in {values} (kv_cache_type) need flash attention"
            )
            yield Problem(("models", name, "flash_attention"), message)


def _clashing_names(recipe: dict[Any, Any]) -> Iterator[Problem]:
    name = recipe.get("name")
    if isinstance(name, str) and name in _mapping(recipe.get("models")):
        yield Problem(("name",), f"{name!r} is also the name of a model; give the mixture another name")
    aggregator = _mapping(recipe.get("aggregator"))
    seen = [aggregator.get("model")]
    for n, fallback in enumerate(_sequence(aggregator.get("fallbacks"))):
        if fallback in seen:
            message = (
                f"{fallback!r} is already the aggregator or an earlier fallback; leave it out here"
            )
            yield Problem(("aggregator", "fallbacks", n), message)
        seen.append(fallback)


def _impossible_quorum(recipe: dict[Any, Any]) -> Iterator[Problem]:
    quorum = _mapping(recipe.get("limits")).get("quorum")
    for n in range(len(_sequence(recipe.get("layers")))):
        samples = [p.get("samples", 1) for layer, _, p in _proposers(recipe) if layer == n]
        if not all(isinstance(s, int) for s in [quorum, *samples]):
            continue
        if quorum > sum(samples):
            message = f"{quorum} proposals can never come from layer {n + 1}, which gives"
            hint = f"{sum(samples)}; give {sum(samples)} at most"
            yield Problem(("limits", "quorum"), f"{message} {hint}")


def _deadlines_without_rest(recipe: dict[Any, Any]) -> Iterator[Problem]:
    limits, layers = _mapping(recipe.get("limits")), len(_sequence(recipe.get("layers")))
    whole, part = limits.get("deadline_s"), limits.get("layer_deadline_s")
    if isinstance(whole, int | float) and isinstance(part, int | float) and part * layers >= whole:
        take = f"{layers} layers may take {part:g} s each"
        message = take if layers > 1 else f"the layer may take {part:g} s"
        message = f"{message}, so nothing of deadline_s ({whole:g} s) is left for the aggregator"
        hint = f"set layer_deadline_s to about {whole / (2 * layers):.3g}, or raise deadline_s"
        yield Problem(("limits", "layer_deadline_s"), f"{message}; {hint}")


def _bad_references(recipe: dict[Any, Any]) -> Iterator[Problem]:
    references = _mapping(recipe.get("references"))
    if isinstance(references.get("prompt_file"), str):
        message = "this key works in a recipe file only; here, give the text itself in the key prompt"
        yield Problem(("references", "prompt_file"), message)
    item = references.get("item")
    if not isinstance(item, str):
        return
    try:
        parts = [part[1:] for part in Formatter().parse(item) if part[1] is not None]
    except ValueError as error:
        yield Problem(("references", "item"), f"this form cannot be read: {error}")
        return
    # A form could reach into attributes and pad to any width, so only the bare names are allowed.
    if any(part not in (("number", "", None), ("text", "", None)) for part in parts):
        yield Problem(("references", "item"), "only {number} and {text} may stand in braces")
    if all(name != "text" for name, _, _ in parts):
        yield Problem(
            ("references", "item"),
            "{text} is missing: the text of a proposal stands there, and without it the aggregator "
            "would read no proposal",
        )
