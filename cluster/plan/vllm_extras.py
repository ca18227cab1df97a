"""What vLLM holds beside a model's own weights: LoRA adapters, and what guesses tokens."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cluster.plan.checkpoint_facts import Attention, Checkpoint
from cluster.plan.lora import AdapterFacts, BadAdapter, joined, read_adapter
from configs.errors import UserError
from configs.schema import VllmModel
from configs.vllm import Adapter
from configs.weights import HubFolder

FindAdapter = Callable[[str, Adapter], Path | None]
"""Takes an adapter's name and settings; returns its folder, or None if it is not here."""
FROM_HIDDEN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
"""Kinds of matrices whose input is a hidden state."""

logger = logging.getLogger(__name__)


class AbsentAdapter(UserError):
    """The folder of an adapter is not on this machine."""


class CannotSpeculate(UserError):
    """vLLM cannot guess tokens for a model as its settings say."""


def with_adapters(name: str, model: VllmModel, checkpoint: Checkpoint, find: FindAdapter) -> Checkpoint:
    """The checkpoint with the facts about the adapters over the model.

    Args:
        name: the model's name, for errors.
        model: the model's settings.
        checkpoint: the model's weights.
        find: finds the folders of adapters.

    Raises:
        AbsentAdapter: an adapter is not here.
        BadAdapter: an adapter cannot be understood, is not for this model, or vLLM cannot run it.
    """
    if not model.adapters:
        return checkpoint
    facts = []
    for adapter, settings in model.adapters.items():
        folder = find(adapter, settings)
        if folder is None:
            raise AbsentAdapter(
                f"how large adapter {adapter!r} of model {name!r} is cannot be told before it is here: "
                "run `slimmoa models RECIPE --fetch`"
            )
        found = read_adapter(folder)
        _require_fit(adapter, name, found, checkpoint)
        if warning := base_warning(adapter, model, found):
            logger.warning("%s", warning)
        facts.append(found)
    return replace(checkpoint, lora=joined(facts, 4 if model.dtype == "float32" else 2))


def base_warning(adapter: str, model: VllmModel, facts: AdapterFacts) -> str | None:
    """A warning if an adapter names another model than the one of the recipe; None otherwise.

    The recipe may name a quantized copy, so one name only has to contain the other. A folder of this
    machine may have any name and is not compared.
    """
    hubs = [source.hub for source in model.weights if isinstance(source, HubFolder)]
    if facts.base is None or not hubs:
        return None
    made_for = _short(facts.base)
    if any(made_for in _short(hub) or _short(hub) in made_for for hub in hubs):
        return None
    return f"adapter {adapter!r} was made for {facts.base}, and the recipe puts it over {hubs[0]}"


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def _require_fit(adapter: str, model: str, facts: AdapterFacts, checkpoint: Checkpoint) -> None:
    for module in facts.modules:
        if module.suffix in FROM_HIDDEN and module.inputs != checkpoint.hidden:
            raise BadAdapter(
                f"adapter {adapter!r} is not for model {model!r}: {module.name} takes "
                f"{module.inputs} values, and a hidden state of the model has {checkpoint.hidden}"
            )


def with_draft(
    name: str, model: VllmModel, checkpoint: Checkpoint, draft: Checkpoint | None
) -> Checkpoint:
    """The checkpoint with what guesses tokens for the model.

    Args:
        name: the model's name, for errors.
        model: the model's settings.
        checkpoint: the model's weights.
        draft: the weights that guess; None if the method has none of its own.

    Raises:
        CannotSpeculate: the weights do not suit the model.
    """
    if model.speculation is None:
        return checkpoint
    method = model.speculation.method
    if method == "mtp" and not checkpoint.next_token_layers:
        raise CannotSpeculate(
            f"model {name!r} cannot speculate with mtp: its config.json names no layers for the "
            "prediction of several tokens (num_nextn_predict_layers, mtp_num_hidden_layers)"
        )
    if draft is None:
        return checkpoint
    if method == "draft" and draft.vocab != checkpoint.vocab:
        raise CannotSpeculate(
            f"model {name!r} cannot speculate with this draft: the draft's vocabulary has "
            f"{draft.vocab} tokens, and that of the model has {checkpoint.vocab}"
        )
    if method == "draft" and 0 < draft.most_tokens < model.context_tokens:
        # vLLM would quietly shorten the model's own context (vllm/config/vllm.py).
        raise CannotSpeculate(
            f"model {name!r} cannot speculate with this draft: the draft holds {draft.most_tokens} "
            f"tokens, and context_tokens is {model.context_tokens}"
        )
    if method == "eagle" and draft.hidden != checkpoint.hidden:
        raise CannotSpeculate(
            f"model {name!r} cannot speculate with this head: a hidden state of the head has "
            f"{draft.hidden} values, and that of the model has {checkpoint.hidden}"
        )
    return replace(checkpoint, draft=draft)


def cached_layers(model: VllmModel, checkpoint: Checkpoint) -> tuple[Attention, ...]:
    """The layers with a KV cache: those of the model, and those of what guesses for it."""
    layers = checkpoint.attention
    if checkpoint.draft is not None:
        return layers + checkpoint.draft.attention
    if model.speculation is not None and model.speculation.method == "mtp" and layers:
        widest = max(layers, key=lambda kind: (not kind.window_tokens, kind.kv_width))
        return (*layers, replace(widest, layers=checkpoint.next_token_layers))
    return layers


def guessed_tokens(model: VllmModel) -> int:
    """Tokens that are guessed at a time; 0 without speculation."""
    return 0 if model.speculation is None else model.speculation.tokens
