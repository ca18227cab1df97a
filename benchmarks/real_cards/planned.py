"""What is measured: models of the presets with random weights, and what the planner says of them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from actors.engine import Share
from benchmarks.real_cards import dummy_models
from cluster.cards.card import GIB, Card
from cluster.plan.card_fill import host_limit
from cluster.plan.checkpoint import shapes
from cluster.plan.footprint import Footprint
from cluster.plan.placement import Placement
from cluster.plan.planner import plan
from cluster.plan.predict import PredictedSpeed, predict
from cluster.plan.task import FindWeights, planning_task
from configs.errors import UserError
from configs.load import load
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from configs.weights import HubFolder, LocalFolder

Dtype = Literal["bfloat16", "float16", "float32"]
TINY_VLLM: dict[str, Any] = {
    "context_tokens": 1024,
    "concurrency": 4,
    "kv_tokens": 2048,
    "batch_tokens": 512,
    "eager": True,
}
"""Settings of a vLLM model in small."""
TINY_LLAMACPP: dict[str, Any] = {"context_tokens": 1024, "concurrency": 2, "threads": 1}
"""Settings of a llama.cpp model in small."""
TINY_PRESET, TINY_GGUF = "tiny_cpu", "smollm2-135m"
"""The preset and its model that llama.cpp runs in small."""
HERE = LocalFolder(path=".")
"""A folder that stands for the one that is made."""
DEADLINE_S = 300.0
"""Deadline of an answer of the mixture."""


class UnknownModel(UserError):
    """A model that was asked for cannot be run with random weights."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The card that is measured, and how models get their weights."""

    card: Card
    folder: Path
    """Folder for configs and tokenizers."""
    tiny: Literal["", "llamacpp", "vllm"] = ""
    """The engine that runs tiny models in the place of all models; empty for models in true shapes."""
    memory_bytes: int | None = None
    """Most bytes of the card to use; None for all."""
    answer_tokens: int = 128
    """Tokens of the answers by which speed is measured."""
    find_weights: FindWeights | None = None
    """Finds weights for planning; None takes what the recipe says."""
    write: Callable[[Path, dict[str, Any], str], object] = dummy_models.write
    """Makes the folder of a model from its config.json."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One model on its own share of the card, and the plan's figures."""

    name: str
    model: Model
    share: Share
    needs: Footprint
    card: Card
    speed: PredictedSpeed | None

    @property
    def wake_s(self) -> float | None:
        """Seconds in which the link copies the weights at its nominal rate; None if it is unknown."""
        return self.needs.weights / self.card.link if self.card.link else None


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of models that take turns, and its plan."""

    recipe: Recipe
    placement: Placement

    @property
    def used_bytes(self) -> int:
        """Bytes of the card that the plan gives to the models."""
        return sum(card.used_bytes for card in self.placement.cards)


def tiny_engine() -> Literal["llamacpp", "vllm"]:
    """The engine of tiny models on this machine: vLLM if it is installed."""
    return "vllm" if find_spec("vllm") else "llamacpp"


def plan_models(machine: Machine, wanted: Mapping[str, str]) -> list[Planned]:
    """Plan models side by side on the card, all awake.

    Args:
        machine: the card.
        wanted: by a name, a model of a preset, as `PRESET/MODEL`.

    Raises:
        UnknownModel: there is no such model, or it cannot be run with random weights.
        DoesNotFit: they do not fit on the card at the same time.
    """
    models = {
        name: _runnable(machine, name, source).model_copy(update={"residency": "resident"})
        for name, source in wanted.items()
    }
    recipe = _recipe("gpu-check", models, machine)
    task = planning_task(recipe, [machine.card], machine.find_weights)
    placement = plan(task)
    prediction = predict(task, placement)
    speeds = {speed.model: speed for speed in prediction.speeds} if prediction else {}
    return [
        Planned(
            name=replica.model,
            model=models[replica.model],
            share=Share(
                threads=replica.threads,
                on_gpu=machine.card.kind == "gpu",
                utilization=replica.utilization,
                kv_cache_memory_bytes=replica.kv,
                gpus=len(machine.card.indices),
            ),
            needs=task.footprint(replica.model, len(machine.card.indices)),
            card=machine.card,
            speed=speeds.get(replica.model),
        )
        for name in wanted
        for replica in placement.replicas(name)[:1]
    ]


def plan_mixture(machine: Machine, wanted: Mapping[str, str]) -> Mixture:
    """Plan a mixture whose models take turns in one slot.

    Args:
        machine: the card.
        wanted: as for `plan_models`. All propose, and the last one answers.

    Raises:
        UnknownModel: there is no such model, or it cannot be run with random weights.
        DoesNotFit: they do not fit on the card, not even in turns.
    """
    models = {
        name: _runnable(machine, name, source).model_copy(update={"residency": "turns"})
        for name, source in wanted.items()
    }
    recipe = _recipe("mixture", models, machine)
    if (limit := host_limit(recipe, machine.card)) != math.inf:
        # Each node of Ray looks at its own RAM, and would not know what `--host-gib` says.
        cards = recipe.cards.model_copy(update={"host_memory_bytes": int(limit)})
        recipe = recipe.model_copy(update={"cards": cards})
    return Mixture(recipe, plan(planning_task(recipe, [machine.card], machine.find_weights)))


def _recipe(name: str, models: Mapping[str, Model], machine: Machine) -> Recipe:
    """All models propose, and the last one answers."""
    sampling = {"temperature": 0.7, "max_tokens": machine.answer_tokens}
    proposers = [{"model": model, "sampling": sampling} for model in models]
    return Recipe.model_validate(
        {
            "name": name,
            "models": {name: model.model_dump() for name, model in models.items()},
            "layers": [{"proposers": proposers}],
            "aggregator": {"model": list(models)[-1], "sampling": sampling},
            "limits": {
                "deadline_s": 2 * DEADLINE_S,
                "layer_deadline_s": DEADLINE_S,
                "quorum": 1,
                "grace_s": DEADLINE_S,
            },
            "cards": {"memory_bytes": machine.memory_bytes},
        }
    )


def _runnable(machine: Machine, name: str, source: str) -> Model:
    """The model with weights that are there: random ones of vLLM, or the tiny file of llama.cpp."""
    folder = machine.folder / name
    if machine.tiny == "llamacpp":
        model = load(TINY_PRESET).models[TINY_GGUF]
        assert isinstance(model, LlamaCppModel)
        return model.model_copy(update=TINY_LLAMACPP)
    if machine.tiny == "vllm":
        shape, config = VllmModel(engine="vllm", weights=(HERE,), **TINY_VLLM), dummy_models.TINY
    else:
        shape, config = shape_of(source)
    dtype: Dtype = "bfloat16" if shape.dtype == "auto" else shape.dtype
    machine.write(folder, config, dtype)
    changes = {"weights": (LocalFolder(path=str(folder)),), "dtype": dtype, "load_format": "dummy"}
    return shape.model_copy(update={**changes, "residency": "auto"})


def shape_of(source: str) -> tuple[VllmModel, dict[str, Any]]:
    """The settings and the config.json of a model of a preset, as `PRESET/MODEL`.

    Raises:
        UnknownModel: there is no such model, it does not run on vLLM, or its shape is not bundled.
    """
    preset, _, name = source.rpartition("/")
    if not preset:
        raise UnknownModel(f"{source!r} names no model of a preset; write PRESET/MODEL")
    models = load(preset).models
    model = models.get(name)
    if model is None:
        raise UnknownModel(f"preset {preset!r} has no model {name!r}; it has: {', '.join(models)}")
    if not isinstance(model, VllmModel):
        raise UnknownModel(f"model {name!r} of {preset!r} runs on {model.engine}, not on vLLM")
    hubs = [source.hub for source in model.weights if isinstance(source, HubFolder)]
    for hub in hubs:
        if shape := shapes().get(hub):
            return model, shape["config"]
    raise UnknownModel(f"no shape of {hubs} is bundled, so {name!r} cannot get random weights")


def with_host(card: Card, host_gib: float | None) -> Card:
    """The card in a machine of so much RAM; None takes what the system says."""
    return card if host_gib is None else replace(card, host_bytes=int(host_gib * GIB))
