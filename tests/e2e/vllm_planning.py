"""Holds our plans of KV caches against vLLM's own planning, without a GPU.

    python -m tests.e2e.vllm_planning presets   # every preset, card and advice
    python -m tests.e2e.vllm_planning real      # the real configurations that tests/unit has
    python -m tests.e2e.vllm_planning random    # shapes drawn at random: [COUNT [SEED]]
    python -m tests.e2e.vllm_planning --write   # the figures that tests/unit uses without vLLM

It needs vLLM (`make vllm-planning`), whose code is in `pretended_vllm.py`.
"""

import dataclasses
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.cards.catalog import CARDS
from cluster.plan.advice import with_bits
from cluster.plan.checkpoint import Attention, Checkpoint, from_config
from cluster.plan.footprint import footprint, value_bytes
from cluster.plan.kv_cache import KERNEL_BLOCKS, STATE_BLOCK_TOKENS
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.task import PlanningTask, planning_task
from configs.load import load, presets
from configs.schema import VllmModel
from configs.weights import HubFolder
from tests.e2e.pretended_vllm import VllmPlanner, layer_specs, pretend_gpu

FIGURES = Path(__file__).parents[1] / "unit/cluster/plan/vllm_kv_needs.json"
REAL = FIGURES.with_name("real_configs.json")
ABOUT = (
    "The least bytes of a KV cache with which vLLM starts, by vLLM's own get_kv_cache_configs. "
    "Written by `python -m tests.e2e.vllm_planning --write`. attention: layers, kv_width, "
    "window_tokens, value_bytes, packed_bytes; state: layers and bytes of each."
)


@dataclasses.dataclass
class Tally:
    """How many caches vLLM was asked about, and how much more the plans have than it wants at least."""

    accepted: int = 0
    refused: list[str] = dataclasses.field(default_factory=list)
    over: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.accepted} accepted, {len(self.refused)} refused"
        if self.over:
            ranked = sorted(self.over)
            middle, most = ranked[len(ranked) // 2], ranked[-1]
            text += (
                f"; for one sequence {middle[0]:.2%} over vLLM's least (median), at most {most[0]:.2%} "
                f"({most[1]})"
            )
        return "\n".join([text, *self.refused[:20]])


def planned_recipes(preset: str, card: str) -> Iterator[tuple[str, PlanningTask]]:
    """A preset on a card of the catalog, if it fits; else the task with each advice taken."""
    task = planning_task(load(preset), [CARDS[card]])
    try:
        plan(task)
        yield "as it is", task
    except DoesNotFit as refusal:
        for advice in refusal.advice:
            smaller = {name: with_bits(task.checkpoints[name], bits) for name, bits in advice.bits}
            yield (
                advice.text,
                PlanningTask(
                    advice.applied(task.recipe),
                    {**task.checkpoints, **smaller},
                    advice.cards or task.cards,
                ),
            )


def gpu_presets() -> list[str]:
    """The presets whose models vLLM runs from the Hub."""
    found = []
    for name in presets():
        models = [model for model in load(name).models.values() if isinstance(model, VllmModel)]
        if any(isinstance(source, HubFolder) for model in models for source in model.weights):
            found.append(name)
    return found


def check_presets(tally: Tally) -> None:
    """Ask vLLM about every cache of every preset on every card, and of every advice."""
    planner, known = VllmPlanner(_model()), dict[Any, bool]()
    for preset in gpu_presets():
        for card in CARDS:
            for words, task in planned_recipes(preset, card):
                for replica in plan(task).replicas():
                    model, checkpoint = (
                        task.recipe.models[replica.model],
                        task.checkpoints[replica.model],
                    )
                    assert isinstance(model, VllmModel)
                    gpus = max(len(placed.card.indices) for placed in plan(task).cards)
                    key = (
                        checkpoint.attention,
                        model.context_tokens,
                        model.batch_tokens,
                        replica.kv,
                        gpus,
                    )
                    if key not in known:
                        known[key] = _is_accepted(planner, model, checkpoint, replica.kv, gpus)
                    if known[key]:
                        tally.accepted += 1
                    else:
                        tally.refused.append(
                            f"{preset} on {card} {words}: {replica.model} {replica.kv}"
                        )


def check_real(tally: Tally) -> None:
    """Ask vLLM about the planned caches of real checkpoints."""
    usual, packed = VllmPlanner(_model()), VllmPlanner(_model(), "BLHNC")
    for name, entry in json.loads(REAL.read_text("utf-8")).items():
        checkpoint = from_config(entry["config"], 10**10, 0)
        windows = {kind.window_tokens for kind in checkpoint.attention}
        is_mixed = len(windows) > 1 or bool(checkpoint.state_bytes)
        planner = packed if is_mixed and checkpoint.kv_heads == 1 else usual
        for context in (4096, 32_768):
            model = _model(context_tokens=context, concurrency=8, kv_tokens=2 * context)
            for gpus in (1, 8):
                kv = footprint(model, checkpoint, "gpu", gpus).kv
                if not checkpoint.attention or _is_accepted(planner, model, checkpoint, kv, gpus):
                    tally.accepted += 1
                else:
                    tally.refused.append(f"{name}, {context} tokens, {gpus} GPUs: {kv} bytes")


def _is_accepted(
    planner: VllmPlanner, model: VllmModel, checkpoint: Checkpoint, kv: int, gpus: int
) -> bool:
    """Whether vLLM takes the planned bytes, whichever blocks its kernels want."""
    planner.set_lengths(model.context_tokens, max(model.batch_tokens, model.concurrency))
    values = value_bytes(model, checkpoint, "gpu")
    part = _on_one_gpu(checkpoint, gpus)
    return all(
        planner.accepts(layer_specs(part, values, block), kv // gpus) for block in _blocks(checkpoint)
    )


def _blocks(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Tokens of a block that some kernel wants for such a model."""
    if checkpoint.state_bytes and checkpoint.kv_heads != 1:
        return KERNEL_BLOCKS[: KERNEL_BLOCKS.index(STATE_BLOCK_TOKENS) + 1]
    return KERNEL_BLOCKS


def _on_one_gpu(checkpoint: Checkpoint, gpus: int) -> Checkpoint:
    heads = checkpoint.kv_heads or gpus
    attention = tuple(
        replace(kind, kv_width=max(kind.kv_width // heads, kind.kv_width // gpus))
        for kind in checkpoint.attention
    )
    return replace(checkpoint, attention=attention, state_bytes=checkpoint.state_bytes // gpus)


def _model(**settings: Any) -> VllmModel:
    data = {"engine": "vllm", "weights": [{"hub": "a/b"}], "concurrency": 1}
    return VllmModel.model_validate(data | settings)


WIDTHS = (256, 512, 1024, 1536, 2048, 4096, 16384)
FAMILIES: dict[str, Sequence[Attention]] = {
    "gemma2": (Attention(21, 4096), Attention(21, 4096, 4096)),
    "gemma3": (Attention(10, 4096), Attention(52, 4096, 1024)),
    "gemma4": (Attention(5, 2048), Attention(25, 4096, 1024)),
    "gpt-oss-20b": (Attention(12, 1024), Attention(12, 1024, 128)),
    "gpt-oss-eagle": (Attention(13, 1024), Attention(12, 1024, 128)),
    "llama4": (Attention(12, 2048), Attention(36, 2048, 8192)),
    "mimo": (Attention(9, 1536), Attention(39, 2048, 128)),
    "mistral": (Attention(32, 2048, 4096),),
    "nemotron-super": (Attention(40, 2048), Attention(9, 1024)),
    "llama": (Attention(80, 2048),),
}
LATENT = {
    "deepseek-v3": (Attention(61, 576),),
    "glm-5": (Attention(78, 576), Attention(78, 132, 0, 1)),
}
HYBRID = {
    "qwen3.5": ((Attention(16, 2048),), 48, 3_217_408),
    "nemotron-nano": ((Attention(6, 512),), 23, 2_146_304),
    "jamba": ((Attention(4, 2048),), 28, 557_056),
    "falcon-h1": ((Attention(44, 1024),), 44, 3_300_000),
}


def random_shape(dice: random.Random) -> tuple[str, Checkpoint]:
    """A shape like one of today's families, or with odd numbers."""
    base = Checkpoint(10**9, 1, 4096, 14336, 128_256, 4096, (), heads=32, kv_heads=8)
    choice = dice.random()
    if choice < 0.35:
        name, kinds = dice.choice(list(FAMILIES.items()))
        return name, replace(base, attention=tuple(kinds))
    if choice < 0.45:
        name, kinds = dice.choice(list(LATENT.items()))
        return name, replace(base, attention=tuple(kinds), kv_heads=1)
    if choice < 0.6:
        name, (kinds, states, size) = dice.choice(list(HYBRID.items()))
        return name, replace(base, attention=kinds, state_layers=states, state_bytes=states * size)
    kinds = [
        Attention(dice.randint(1, 90), dice.choice(WIDTHS), dice.choice([0, 128, 1024, 4096, 8192]))
    ]
    while dice.random() < 0.6 and len(kinds) < 3:
        kinds.append(
            Attention(dice.randint(1, 90), dice.choice(WIDTHS), dice.choice([0, 0, 128, 512, 4096]))
        )
    states = dice.choice([0, 0, 0, dice.randint(1, 60)])
    found = replace(base, attention=tuple(kinds))
    if not states:
        return "odd", found
    return "odd hybrid", replace(
        found, state_layers=states, state_bytes=states * dice.randint(1 << 10, 4 << 20)
    )


def check_random(tally: Tally, count: int, seed: int = 0) -> None:
    """Ask vLLM about the planned caches of shapes drawn at random."""
    dice, planner = random.Random(seed), VllmPlanner(_model())
    for _ in range(count):
        name, checkpoint = random_shape(dice)
        context = dice.choice([dice.randint(128, 9000), dice.randint(128, 200_000), 8192, 131_072])
        model = _model(
            context_tokens=context,
            batch_tokens=dice.choice([2048, 2048, 8192, dice.randint(32, 20_000)]),
            concurrency=dice.choice([1, 1, 4, 24, dice.randint(1, 256)]),
            kv_tokens=dice.choice([None, context, dice.randint(128, 300_000)]),
            kv_cache_dtype=dice.choice(["auto", "auto", "fp8"]),
        )
        gpus = dice.choice([1, 1, 2, 4, 8])
        kv = footprint(model, checkpoint, "gpu", gpus).kv
        if _is_accepted(planner, model, checkpoint, kv, gpus):
            tally.accepted += 1
        else:
            tally.refused.append(f"{name}: {checkpoint.attention}, {model!r}, {gpus} GPUs, {kv} bytes")
        alone = model.model_copy(update={"concurrency": 1, "kv_tokens": None})
        usual = STATE_BLOCK_TOKENS if checkpoint.state_bytes else 16
        values = 1 if model.kv_cache_dtype == "fp8" else 2
        planner.set_lengths(context, model.batch_tokens)
        least = planner.least_bytes(layer_specs(checkpoint, values, usual))
        over = footprint(alone, checkpoint, "gpu").kv / least - 1
        tally.over.append((over, f"{name}, a context of {context} tokens"))


def figures() -> Iterator[dict[str, Any]]:
    """vLLM's least bytes for the families above, and for shapes drawn at random."""
    planner, dice = VllmPlanner(_model()), random.Random(0)
    base = Checkpoint(10**9, 1, 4096, 14336, 128_256, 4096, (), heads=32, kv_heads=8)
    known = [(name, replace(base, attention=tuple(kinds))) for name, kinds in FAMILIES.items()]
    known += [
        (name, replace(base, attention=tuple(kinds), kv_heads=1)) for name, kinds in LATENT.items()
    ]
    known += [
        (name, replace(base, attention=kinds, state_layers=states, state_bytes=states * size))
        for name, (kinds, states, size) in HYBRID.items()
    ]
    drawn = [random_shape(dice) for _ in range(60)]
    for number, (name, shape) in enumerate([*known, *drawn]):
        context, batch = dice.choice([4096, 8192, 10_007, 131_072]), dice.choice([512, 2048, 8192])
        block, values = dice.choice([16, 64, 128]), dice.choice([1, 2])
        planner.set_lengths(context, batch)
        states = shape.state_bytes // shape.state_layers if shape.state_layers else 0
        yield {
            "name": f"{number} {name}",
            "attention": [dataclasses.astuple(kind) for kind in shape.attention],
            "state": [shape.state_layers, states],
            "latent": shape.kv_heads == 1,
            "context": context,
            "in_flight": planner.config.max_in_flight_tokens,
            "value_bytes": values,
            "block": block,
            "least_bytes": planner.least_bytes(layer_specs(shape, values, block)),
        }


def write_figures() -> None:
    """Write the figures of `figures()` to FIGURES, one case on a line."""
    import vllm

    lines = ",\n".join(json.dumps(case) for case in figures())
    head = json.dumps({"_about": ABOUT, "vllm": vllm.__version__})[:-1]
    FIGURES.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', "utf-8")


def main() -> None:
    """Do what the command line says, and fail if vLLM refuses anything."""
    pretend_gpu()
    tally = Tally()
    match sys.argv[1:]:
        case ["--write"]:
            write_figures()
        case ["presets"]:
            check_presets(tally)
        case ["real"]:
            check_real(tally)
        case ["random", *more]:
            check_random(tally, int(more[0]) if more else 300, int(more[1]) if more[1:] else 0)
        case _:
            sys.exit(__doc__)
    print(tally)
    sys.exit(1 if tally.refused else 0)


if __name__ == "__main__":
    main()
