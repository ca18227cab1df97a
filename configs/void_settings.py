"""Settings that have no effect, because another setting of the recipe speaks against them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from configs.limit_checks import may_take_turns, samplings, takes_card
from configs.models import ChatModel, OpenAIHttpModel, ScriptedModel, VllmModel
from configs.problem import Problem, Where
from configs.sampling import DRAWING
from configs.schema import Recipe

GREEDY = (("temperature", 0), ("top_k", 1))
"""Values with which every sample of a prompt is the same text."""


def void_settings(recipe: Recipe) -> list[Problem]:
    """Settings of the recipe that have no effect, or not the one that they are there for."""
    rules = (
        _copies,
        _pointless_grace,
        _limits_never_reached,
        _patience_beyond_deadline,
        _thinking_twice,
        _values_never_sent,
        _small_caches,
        _turns_without_card,
        _open_with_keys,
        _settings_of_other_methods,
        _metrics_keys_unread,
    )
    return [problem for rule in rules for problem in rule(recipe)]


def _copies(recipe: Recipe) -> Iterator[Problem]:
    for n, layer in enumerate(recipe.layers):
        drawn = Counter[tuple[str, int]]()
        for m, proposer in enumerate(layer.proposers):
            where: Where = ("layers", n, "proposers", m)
            sampling = proposer.sampling
            own = recipe.settings(proposer.model).sampling
            said = {**own.said, **sampling.said}
            greedy = next((f"{k} {said[k]:g}" for k, v in GREEDY if said.get(k) == v), None)
            if proposer.samples > 1 and greedy:
                message = f"{proposer.samples} samples at {greedy} are copies of one another"
                yield Problem(
                    (*where, "samples"), f"{message}; set samples to 1, or a temperature above 0"
                )
            if sampling.seed is not None and not greedy:
                seeds = [(proposer.model, sampling.seed + k) for k in range(proposer.samples)]
                if twice := next((seed for seed in seeds if drawn[seed]), None):
                    message = (
                        f"another proposer of this layer asks {proposer.model!r} with seed {twice[1]}"
                    )
                    yield Problem(
                        (*where, "sampling", "seed"),
                        f"{message} too; give seeds that are further apart",
                    )
                drawn.update(seeds)


def _pointless_grace(recipe: Recipe) -> Iterator[Problem]:
    limits = recipe.limits
    if limits.grace_s is None:
        return
    if all(limits.quorum == count for count in recipe.samples):
        message = f"has no effect: the quorum, {limits.quorum}, is all proposals of each layer"
        yield Problem(("limits", "grace_s"), f"{message}; give a lower quorum, or leave grace_s out")
    elif limits.grace_s == 0 and not all(map(_is_scripted, recipe.models.values())):
        yield Problem(
            ("limits", "grace_s"),
            f"with 0, a layer ends as soon as it has {limits.quorum} of {max(recipe.samples)} "
            "proposals (quorum), so the slower proposers are always dropped; give them some seconds, "
            "or raise quorum",
        )


def _is_scripted(model: Any) -> bool:
    return isinstance(model, ScriptedModel)


def _limits_never_reached(recipe: Recipe) -> Iterator[Problem]:
    limits, aggregator = recipe.limits, recipe.aggregator
    whole = ("deadline_s", limits.deadline_s)
    layer = ("layer_deadline_s", limits.layer_deadline_s)
    given: list[tuple[Where, float | None, tuple[str, float]]] = [
        (("aggregator", "first_token_timeout_s"), aggregator.first_token_timeout_s, whole),
        (("limits", "grace_s"), limits.grace_s, layer),
    ]
    if "keepalive_s" in limits.model_fields_set:
        given.append((("limits", "keepalive_s"), limits.keepalive_s, whole))
    for name, model in recipe.models.items():
        if isinstance(model, OpenAIHttpModel):
            for setting in {"connect_timeout_s", "read_timeout_s"} & model.model_fields_set:
                given.append((("models", name, setting), getattr(model, setting), whole))
    for where, value, (other, limit) in given:
        if value is not None and value >= limit:
            message = f"{value:g} s have no effect, because {other} ends first, after {limit:g} s"
            yield Problem(where, f"{message}; give less than {limit:g}, or leave this key out")


def _patience_beyond_deadline(recipe: Recipe) -> Iterator[Problem]:
    patience, limits = recipe.cards.patience_s, recipe.limits
    limit = min(limits.layer_deadline_s, limits.deadline_s)
    if patience >= limit and any(map(may_take_turns, recipe.models.values())):
        name = "layer_deadline_s" if limit == limits.layer_deadline_s else "deadline_s"
        yield Problem(
            ("cards", "patience_s"),
            f"{patience:g} s: a proposer that waits so long for its turn is late, because {name} is "
            f"{limit:g} s; give less than {limit:g}, for example {limit / 4:g}",
        )


def _thinking_twice(recipe: Recipe) -> Iterator[Problem]:
    for where, name, sampling in samplings(recipe):
        model = recipe.settings(name)
        own = model.template if isinstance(model, ChatModel) else {}
        arguments = {**own, **sampling.template_arguments}
        thinks = arguments.get("enable_thinking", arguments.get("thinking"))
        if sampling.thinking_tokens and thinks is False:
            message = (
                f"{sampling.thinking_tokens} have no effect, because model {name!r} is told not to"
            )
            hint = "think (reasoning_effort or template); leave one of the two out"
            yield Problem((*where, "thinking_tokens"), f"{message} {hint}")
        if sampling.thinking_tokens and getattr(model, "reasoning_format", "auto") == "none":
            message = "has no effect, because reasoning_format of model"
            hint = "is none, so all that it writes is its answer; leave one of the two out"
            yield Problem((*where, "thinking_tokens"), f"{message} {name!r} {hint}")
        effort = sampling.reasoning_effort
        for key in ("enable_thinking", "thinking"):
            if effort is not None and sampling.template.get(key, effort != "none") != (
                effort != "none"
            ):
                message = f"is {effort!r}, and template says {key}: {sampling.template[key]}".lower()
                hint = "the template wins; leave one of the two out"
                yield Problem((*where, "reasoning_effort"), f"{message}; {hint}")


def _values_never_sent(recipe: Recipe) -> Iterator[Problem]:
    for where, name, sampling in samplings(recipe):
        model = recipe.settings(name)
        if not isinstance(model, OpenAIHttpModel):
            continue
        for setting in (*DRAWING, "max_tokens", "seed"):
            field = model.output_limit if setting == "max_tokens" else setting
            if field in model.omit and getattr(sampling, setting) is not None:
                message = f"never reaches the server, because model {name!r} omits {field!r} (omit)"
                yield Problem((*where, setting), f"{message}; leave one of the two out")
    for name, model in recipe.models.items():
        if not isinstance(model, OpenAIHttpModel):
            continue
        for field in sorted(set(model.omit) & {*model.extra_body, model.thinking_limit}, key=str):
            message = f"{field!r} is added to each request and left out of it (omit); choose one"
            yield Problem(("models", name, "omit"), message)


def _small_caches(recipe: Recipe) -> Iterator[Problem]:
    for name, model in recipe.models.items():
        if isinstance(model, VllmModel) and model.kv_tokens and model.kv_tokens < model.context_tokens:
            message = f"{model.kv_tokens} are less than one context, {model.context_tokens} tokens"
            hint = "that many are kept in any case; give at least context_tokens"
            yield Problem(("models", name, "kv_tokens"), f"{message}; {hint}")


def _turns_without_card(recipe: Recipe) -> Iterator[Problem]:
    for name, model in recipe.models.items():
        if model.residency == "turns" and not takes_card(model):
            message = "has no effect: models of this engine take no card"
            hint = " without weight_bytes" if isinstance(model, ScriptedModel) else ""
            yield Problem(("models", name, "residency"), f"{message}{hint}; leave it out")


def _metrics_keys_unread(recipe: Recipe) -> Iterator[Problem]:
    if recipe.access.metrics_keys and recipe.access.metrics != "keys":
        message = f"has no effect with metrics: {recipe.access.metrics}"
        yield Problem(("access", "metrics_keys"), f"{message}; leave one of the two out")


def _open_with_keys(recipe: Recipe) -> Iterator[Problem]:
    if recipe.access.open and recipe.access.keys_file is not None:
        message = "has no effect, because keys_file names API keys, and then every request needs one"
        yield Problem(("access", "open"), f"{message}; leave one of the two out")


def _settings_of_other_methods(recipe: Recipe) -> Iterator[Problem]:
    aggregator = recipe.aggregator
    method, given = aggregator.method, aggregator.model_fields_set
    if "margin" in given and method not in ("select", "select_or_merge"):
        message = f"has no effect with method {method}; it belongs to select and select_or_merge"
        yield Problem(("aggregator", "margin"), f"{message}; leave it out")
    if aggregator.answer is not None and method != "vote" and not aggregator.guard:
        message = f"has no effect with method {method}; it belongs to vote and to guard"
        yield Problem(("aggregator", "answer"), f"{message}; leave it out, or set it in exit")
    if aggregator.guard and method == "select":
        message = "has no effect with method select, because nothing is merged"
        yield Problem(("aggregator", "guard"), f"{message}; leave it out")
