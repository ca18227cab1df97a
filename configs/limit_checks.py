"""Checks that the limits of a recipe leave one answer room: queues, deadlines, contexts and rates.

`contradictions` are refused: with them no answer could ever be what the recipe asks for. `cautions` are
only warned of: some answers would be poorer than the recipe asks for. A recipe without either degrades
no answer on an idle server, as far as the recipe alone can tell. How fast engines are, only a plan can
tell (`cluster/plan/predict.py`). `void_settings.py` warns of settings that have no effect.
"""

from collections.abc import Iterator
from typing import Any

from configs.extra_parameters import STRUCTURES, can_honour
from configs.models import LlamaCppModel, ScriptedModel, VllmModel
from configs.problem import Problem, Where
from configs.sampling import Sampling
from configs.schema import Recipe
from configs.scripted_times import layer_times, seconds, words

LEAST_REFERENCE_TOKENS = 32
"""Tokens that a conversation must leave free for each reference. Otherwise the request is refused
before any model works on it."""
SHORT_REFERENCE_TOKENS = 256
"""A reference that is cut to fewer tokens is worth a warning."""
CHARACTERS_PER_TOKEN = 4
"""Characters of English in a token, as a rule. JSON takes about as many bytes of a request's body."""
FRAME_TOKENS = 128
"""Tokens of a short question, with the marks of a chat template around two messages."""


def contradictions(recipe: Recipe) -> list[Problem]:
    """What one answer can never do with this recipe."""
    return [
        *_queues_below_one_answer(recipe),
        *_contexts_without_references(recipe),
        *_impossible_extra(recipe),
    ]


def cautions(recipe: Recipe) -> list[Problem]:
    """What makes answers poorer than the recipe asks for."""
    rules = (
        _queues_of_turns,
        _short_prompts,
        _short_references,
        _late_samples,
        _late_answer,
        _empty_and_faulty_scripts,
        _rates_below_one_answer,
        _answers_beyond_capacity,
        _bodies_below_context,
    )
    return [problem for rule in rules for problem in rule(recipe)]


def samplings(recipe: Recipe) -> Iterator[tuple[Where, str, Sampling]]:
    """The path to each sampling, the model that is asked with it, and the sampling."""
    for n, layer in enumerate(recipe.layers):
        for m, proposer in enumerate(layer.proposers):
            yield ("layers", n, "proposers", m, "sampling"), proposer.model, proposer.sampling
    for model in recipe.aggregators:
        yield ("aggregator", "sampling"), model, recipe.aggregator.sampling


def takes_card(model: Any) -> bool:
    """Whether a model is placed on a card."""
    on_card = isinstance(model, LlamaCppModel | VllmModel)
    return on_card or (isinstance(model, ScriptedModel) and model.weight_bytes is not None)


def may_take_turns(model: Any) -> bool:
    """Whether a model may share a slot with others, and so be away when a call comes."""
    return takes_card(model) and model.residency != "resident"


def _queues_below_one_answer(recipe: Recipe) -> Iterator[Problem]:
    queue = recipe.limits.queue
    for name, calls in recipe.calls_at_once(recipe.name).items():
        model = recipe.models[name]
        each = -(-calls // model.replicas.min)
        if queue is not None and each > model.concurrency + queue:
            yield Problem(
                ("limits", "queue"),
                f"an answer makes {each} calls of model {name!r} at once{_of_replica(model)}, of which "
                f"{model.concurrency} run (concurrency) and {queue} wait (queue), so the others would "
                f"be refused; set queue to {each} or more, or leave it out",
            )


def _of_replica(model: Any) -> str:
    return " per replica" if model.replicas.min > 1 else ""


def _queues_of_turns(recipe: Recipe) -> Iterator[Problem]:
    queue = recipe.limits.queue
    for name, calls in recipe.calls_at_once(recipe.name).items():
        model = recipe.models[name]
        each = -(-calls // model.replicas.min)
        if queue is not None and may_take_turns(model) and queue < each <= model.concurrency + queue:
            yield Problem(
                ("limits", "queue"),
                f"model {name!r} may take turns with others: while it is not on the card, "
                f"all {each} calls that an answer makes of it{_of_replica(model)} wait, and only "
                f"{queue} may (queue); set queue to {each} or more",
            )


def _reading_stages(recipe: Recipe) -> Iterator[tuple[Where, str, Sampling, int, int]]:
    """All uses that read references: where, the model, its sampling, the number of references, and the
    most tokens of the longest of them."""
    before = None
    for n, layer in enumerate(recipe.layers):
        if before is not None:
            longest = max(p.sampling.answer_tokens for p in before.proposers)
            for m, proposer in enumerate(layer.proposers):
                where: Where = ("layers", n, "proposers", m)
                count = layer.see or before.samples
                yield where, proposer.model, proposer.sampling, count, longest
        before = layer
    assert before is not None
    longest = max(p.sampling.answer_tokens for p in before.proposers)
    for name in recipe.aggregators:
        yield ("aggregator",), name, recipe.aggregator.sampling, before.samples, longest


def _contexts_without_references(recipe: Recipe) -> Iterator[Problem]:
    for where, name, sampling, count, _ in _reading_stages(recipe):
        if where == ("aggregator",) and name != recipe.aggregator.model:
            continue  # the aggregator may hold what a fallback cannot
        context, least = recipe.settings(name).context_tokens, count * LEAST_REFERENCE_TOKENS
        room = context - sampling.most_tokens
        if 0 < room <= least:
            yield Problem(
                where,
                f"model {name!r} holds {context} tokens (context_tokens), and {sampling.most_tokens} "
                "of "
                f"answer and reasoning leave {room} for {count} references, which take "
                f"{LEAST_REFERENCE_TOKENS} each at least; give context_tokens above "
                f"{sampling.most_tokens + least}, or a smaller max_tokens",
            )


def _short_prompts(recipe: Recipe) -> Iterator[Problem]:
    for m, proposer in enumerate(recipe.layers[0].proposers):
        context = recipe.settings(proposer.model).context_tokens
        room = context - proposer.sampling.most_tokens
        if room < FRAME_TOKENS:
            yield Problem(
                ("layers", 0, "proposers", m),
                f"model {proposer.model!r} holds {context} tokens (context_tokens), and max_tokens "
                "leaves "
                f"{room} for the question: longer ones get no proposal from it; give context_tokens of "
                f"{proposer.sampling.most_tokens + 4 * FRAME_TOKENS} or more, or a smaller max_tokens",
            )


def _short_references(recipe: Recipe) -> Iterator[Problem]:
    frame = FRAME_TOKENS + len(recipe.references.prompt) // CHARACTERS_PER_TOKEN
    for where, name, sampling, count, longest in _reading_stages(recipe):
        context = recipe.settings(name).context_tokens
        room = context - sampling.most_tokens - frame
        wanted = min(longest, SHORT_REFERENCE_TOKENS)
        if room < wanted * count:
            yield Problem(
                where,
                f"model {name!r} holds {context} tokens (context_tokens); the answer and the "
                f"instructions leave {max(0, room) // count} for each of {count} references, which may "
                f"have {longest} (max_tokens of the proposers), so they are cut; give context_tokens "
                "of "
                f"{sampling.most_tokens + frame + wanted * count} or more",
            )


def _impossible_extra(recipe: Recipe) -> Iterator[Problem]:
    for where, name, sampling in samplings(recipe):
        fewest = sampling.extra.get("min_tokens") or 0
        if fewest > sampling.most_tokens:
            message = f"{fewest} is above max_tokens, which is {sampling.most_tokens}; give less"
            yield Problem((*where, "extra", "min_tokens"), message)
        engine, structure = recipe.settings(name).engine, sampling.extra.get("structure")
        if structure is not None and not can_honour(engine, "structure", structure):
            known = ", ".join(sorted(STRUCTURES[engine])) or "none"
            message = f"the engine {engine!r} of model {name!r} cannot hold answers to this form"
            yield Problem((*where, "extra", "structure"), f"{message} (it can: {known})")


def _late_samples(recipe: Recipe) -> Iterator[Problem]:
    limits = recipe.limits
    for n, layer in enumerate(recipe.layers):
        times = layer_times(recipe, layer)
        late = {time.proposer: time for time in times if time.end_s >= limits.layer_deadline_s}
        for m, time in sorted(late.items()):
            how = "is always" if time.end_s > limits.layer_deadline_s else "may be"
            yield Problem(
                ("layers", n, "proposers", m),
                f"model {time.model!r} needs {time.end_s:g} s for this layer, so its proposal {how} "
                f"late (layer_deadline_s is {limits.layer_deadline_s:g}); give layer_deadline_s above "
                f"{time.end_s:g}, or the model a higher concurrency",
            )
        quorum = min(limits.quorum, len(times))
        if limits.grace_s is None or quorum == len(times):
            continue
        limit = times[quorum - 1].end_s + limits.grace_s
        left = {t.proposer: t for t in times[quorum:] if t.end_s >= limit and t.proposer not in late}
        for m, time in sorted(left.items()):
            how = "is always" if time.end_s > limit else "may be"
            yield Problem(
                ("limits", "grace_s"),
                f"layer {n + 1} ends {limits.grace_s:g} s after it has {quorum} of {len(times)} "
                f"proposals (quorum), so the proposal of {time.model!r} (proposer {m + 1}) {how} "
                f"dropped; set grace_s above {time.end_s - times[quorum - 1].end_s:g}, or raise quorum",
            )


def _late_answer(recipe: Recipe) -> Iterator[Problem]:
    model, aggregator = recipe.models.get(recipe.aggregator.model), recipe.aggregator
    if not isinstance(model, ScriptedModel):
        return
    limits, most = recipe.limits, aggregator.first_token_timeout_s
    if most is not None and model.first_token_s >= most:
        yield Problem(
            ("aggregator", "first_token_timeout_s"),
            f"{most:g} s may be over before the first token of model {aggregator.model!r}, which "
            f"comes after "
            f"{model.first_token_s:g} s (first_token_s); give more than that",
        )
    layers = [min(layer_times(recipe, n)[-1].end_s, limits.layer_deadline_s) for n in recipe.layers]
    whole = sum(layers) + seconds(model, aggregator.sampling)
    if whole >= limits.deadline_s:
        yield Problem(
            ("limits", "deadline_s"),
            f"{limits.deadline_s:g} s end an answer before it is complete, because it takes "
            f"{whole:g} s; "
            "give more than that",
        )


def _empty_and_faulty_scripts(recipe: Recipe) -> Iterator[Problem]:
    used = {}
    for where, name, sampling in samplings(recipe):
        model = recipe.models.get(name)
        if not isinstance(model, ScriptedModel):
            continue
        used[name] = model
        if name != recipe.aggregator.model and where[0] == "aggregator":
            continue
        if not words(model, sampling):
            yield Problem(
                where[:-1], f"the script of model {name!r} is empty here, so it never answers"
            )
    for name, model in used.items():
        for setting in ("fail_share", "hang_share"):
            if share := getattr(model, setting):
                message = f"{share:g} of this model's calls fail on purpose, which degrades answers"
                yield Problem(("models", name, setting), message)


def _most_tokens_of_one_answer(recipe: Recipe) -> int:
    """Most tokens that all calls of one answer write together."""
    proposals = sum(p.samples * p.sampling.most_tokens for p in recipe.proposers())
    return proposals + recipe.aggregator.sampling.most_tokens


def _rates_below_one_answer(recipe: Recipe) -> Iterator[Problem]:
    allowance = recipe.access.allowance
    most, rate = _most_tokens_of_one_answer(recipe), allowance.tokens_per_minute
    if rate is not None and rate < most:
        yield Problem(
            ("access", "allowance", "tokens_per_minute"),
            f"{rate} is below one answer, whose calls write up to {most} tokens together: after it, "
            "the "
            f"key has to wait up to {most / rate:.1f} minutes; give {most} or more",
        )
    answer, limit = recipe.aggregator.sampling.answer_tokens, allowance.max_tokens
    said = recipe.aggregator.sampling.max_tokens is not None
    if limit is not None and said and limit < answer:
        yield Problem(
            ("access", "allowance", "max_tokens"),
            f"{limit} cuts every answer short of the aggregator's max_tokens, {answer}; give the same "
            "number in both places",
        )


def _answers_beyond_capacity(recipe: Recipe) -> Iterator[Problem]:
    wanted = recipe.access.allowance.concurrency
    if wanted is None:
        return
    for name, calls in recipe.calls_at_once(recipe.name).items():
        model = recipe.models[name]
        room = recipe.capacity_per_replica(name) * (model.replicas.max or model.replicas.min)
        if room // calls < wanted:
            yield Problem(
                ("access", "allowance", "concurrency"),
                f"{wanted} answers at a time are never reached: model {name!r} runs and queues {room} "
                f"calls, enough for {room // calls} (an answer makes {calls}); give "
                f"{max(1, room // calls)} or less, or a larger limits.queue",
            )


def _bodies_below_context(recipe: Recipe) -> Iterator[Problem]:
    limits = recipe.limits
    most, room = limits.max_body_bytes, recipe.settings(recipe.aggregator.model).context_tokens
    if "max_body_bytes" in limits.model_fields_set and most < room * CHARACTERS_PER_TOKEN:
        yield Problem(
            ("limits", "max_body_bytes"),
            f"{most} bytes refuse conversations that model {recipe.aggregator.model!r} could hold: its "
            f"context_tokens, {room}, are about {room * CHARACTERS_PER_TOKEN} bytes; give that or more",
        )
