"""vLLM's own planning of KV caches, on a CPU that pretends to be a GPU, held against our plans.

It needs vLLM 0.33 without its CUDA companions (`make vllm-planning` makes an environment for it), and runs
in a process of its own, because it replaces vLLM's platform.

    python -m tests.e2e.vllm_planning presets   # every preset, card and advice
    python -m tests.e2e.vllm_planning random    # shapes drawn at random
    python -m tests.e2e.vllm_planning --write   # the figures that tests/unit uses without vLLM
"""

import dataclasses
import json
import os
import random
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.engine import Share
from actors.engines.vllm_arguments import engine_arguments
from cluster.cards.catalog import CARDS
from cluster.plan.checkpoint import Attention, Checkpoint, shapes
from cluster.plan.footprint import footprint
from cluster.plan.kv_cache import STATE_BLOCK_TOKENS, STATES
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.task import PlanningTask, planning_task
from configs.load import load, presets
from configs.schema import VllmModel
from configs.weights import HubFolder

FIGURES = Path(__file__).parents[1] / "unit/cluster/plan/vllm_kv_needs.json"
ABOUT = (
    "The least bytes of a KV cache with which vLLM starts, by vLLM's own get_kv_cache_configs. Written by "
    "`python -m tests.e2e.vllm_planning --write`. attention: layers, kv_width, window_tokens, value_bytes; "
    "state: layers and bytes of each."
)
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 10_000_000,
    "torch_dtype": "bfloat16",
}
"""A config.json with which vLLM makes its settings; the layers come from the shapes to check."""


def pretend_gpu(capability: tuple[int, int] = (8, 0)) -> None:
    """Make vLLM believe that it runs on an NVIDIA GPU, without any of its CUDA libraries."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    for name in ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("vllm.vllm_flash_attn", "vllm.vllm_flash_attn.flash_attn_interface"):
        sys.modules[name] = _AnyFunction(name)
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    answers: dict[str, Any] = {
        "get_device_capability": DeviceCapability(*capability),
        "has_device_capability": True,
        "get_device_name": "NVIDIA A100-SXM4-80GB",
        "get_device_total_memory": 80 << 30,
        "is_fully_connected": True,
        "num_compute_units": 108,
        "is_cumem_allocator_available": True,
        "is_sleep_mode_available": True,
    }
    methods = {
        name: classmethod(lambda *_, value=value, **__: value) for name, value in answers.items()
    }
    vllm.platforms._current_platform = type("PretendedGpu", (NonNvmlCudaPlatform,), methods)()
    import vllm.model_executor.models.registry as registry  # this module asks for the platform

    registry._LazyRegisteredModel.inspect_model_cls = lambda _: _model_info(registry._ModelInfo)


class _AnyFunction(types.ModuleType):
    """A module that has every function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: None if name.endswith("reason") else True


def _model_info(kind: Any) -> Any:
    """What vLLM's registry would find out about a model's class: that it writes text."""
    known = {
        "architecture": "LlamaForCausalLM",
        "is_text_generation_model": True,
        "supports_pp": True,
        "default_seq_pooling_type": "LAST",
        "default_tok_pooling_type": "ALL",
        "attn_type": "decoder",
        "score_type": "bi-encoder",
    }
    missing = dataclasses.MISSING
    needed = [f for f in dataclasses.fields(kind) if f.default is f.default_factory is missing]
    return kind(**{field.name: known.get(field.name, False) for field in needed})


class VllmPlanner:
    """vLLM's planning code with our settings for a model."""

    def __init__(self, model: VllmModel) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.attention.backends.utils import record_kv_cache_layout

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(TINY))
            model = model.model_copy(update={"quantization": None, "load_format": "dummy"})
            share = Share(1, True, 0.5, 1 << 30, 1)
            arguments = engine_arguments(Path(folder), model, share, "gpu")
            arguments["skip_tokenizer_init"] = True
            self.config = AsyncEngineArgs(**arguments).create_engine_config()
        record_kv_cache_layout(self.config.cache_config, "LBNHC")  # what most backends resolve to
        self.config.cache_config.mamba_cache_mode = "align"

    def least_bytes(self, specs: dict[str, Any]) -> int:
        """The least bytes of a cache that vLLM accepts; checked with one byte less."""
        from vllm.v1.core import kv_cache_planning as planning
        from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder

        builder = get_kv_cache_config_builder(self.config)
        groups = planning.get_global_kv_cache_groups(self.config, [dict(specs)])
        least = planning._max_memory_usage_bytes_from_groups(builder, self.config, groups)
        least += planning._pool_bytes_per_block_from_builder(builder, self.config, groups)
        assert self.accepts(specs, least)
        assert not self.accepts(specs, least - 1)
        return int(least)

    def accepts(self, specs: dict[str, Any], available: int) -> bool:
        """Whether vLLM starts with these layers and so many bytes for the cache."""
        from vllm.v1.core import kv_cache_planning as planning

        groups = planning.get_global_kv_cache_groups(self.config, [dict(specs)])
        try:
            planning.get_kv_cache_configs(self.config, [dict(specs)], [available], groups)
        except ValueError as error:
            if "KV cache" not in str(error) and "cache blocks" not in str(error):
                raise
            return False
        return True


def layer_specs(checkpoint: Checkpoint, value_bytes: int, block: int) -> dict[str, Any]:
    """vLLM's description of each layer's cache, as its attention layers make them.

    Args:
        checkpoint: the model's layers.
        value_bytes: bytes of one value in the cache.
        block: tokens of a block that the kernels want.
    """
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

    dtypes = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
    block, states = _with_states(checkpoint, value_bytes, block)
    specs: dict[str, Any] = {}
    for kind in checkpoint.attention:
        dtype = dtypes[kind.value_bytes or value_bytes]
        common = {"block_size": block, "num_kv_heads": 1, "dtype": dtype}
        for _ in range(kind.layers):
            name = f"model.layers.{len(specs)}.attn"
            if kind.window_tokens:
                half = {"head_size": kind.kv_width // 2, "sliding_window": kind.window_tokens}
                specs[name] = SlidingWindowSpec(**common, **half)
            elif checkpoint.kv_heads == 1:
                specs[name] = MLAAttentionSpec(**common, head_size=kind.kv_width)
            else:
                specs[name] = FullAttentionSpec(**common, head_size=kind.kv_width // 2)
    return specs | states


def _with_states(checkpoint: Checkpoint, value_bytes: int, block: int) -> tuple[int, dict[str, Any]]:
    """The tokens of a block, and the layers with states, as Platform._align_hybrid_block_size makes them."""
    import torch
    from vllm.v1.kv_cache_interface import MambaSpec

    if not checkpoint.state_bytes:
        return block, {}
    state = -(-checkpoint.state_bytes // checkpoint.state_layers)
    token = max(each.kv_width * (each.value_bytes or value_bytes) for each in checkpoint.attention)
    block *= -(-state // (block * token))
    spec = MambaSpec(
        block_size=block,
        shapes=((state,),),
        dtypes=(torch.uint8,),
        page_size_padded=block * token,
        mamba_cache_mode="align",
        num_prefill_checkpoint_blocks=STATES - 2,
    )
    return block, {f"model.layers.{n}.mixer": spec for n in range(checkpoint.state_layers)}


@dataclasses.dataclass
class Tally:
    """How many caches vLLM was asked about, and how much more the plans have than it wants at least."""

    accepted: int = 0
    refused: list[str] = dataclasses.field(default_factory=list)
    over: list[float] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.accepted} accepted, {len(self.refused)} refused"
        if self.over:
            ranked = sorted(self.over)
            middle, most = ranked[len(ranked) // 2], ranked[-1]
            text += f"; planned for one sequence: {middle:.2%} over vLLM's least (median), {most:.2%} at most"
        return "\n".join([text, *self.refused[:20]])


def planned_recipes(preset: str, card: str) -> Iterator[tuple[str, PlanningTask]]:
    """A preset on a card of the catalog, if it fits; else the task with each advice taken."""
    from cluster.plan.advice import with_bits

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


def _is_accepted(
    planner: VllmPlanner, model: VllmModel, checkpoint: Checkpoint, kv: int, gpus: int
) -> bool:
    """Whether vLLM takes the planned bytes, whichever blocks its kernels want."""
    set_lengths(planner, model.context_tokens, max(model.batch_tokens, model.concurrency))
    values = 1 if model.kv_cache_dtype == "fp8" else 2
    part = _on_one_gpu(checkpoint, gpus)
    return all(
        planner.accepts(layer_specs(part, values, block), kv // gpus) for block in _blocks(checkpoint)
    )


def _blocks(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Tokens of a block that some kernel wants for such a model."""
    if checkpoint.state_bytes and checkpoint.kv_heads != 1:
        return 16, STATE_BLOCK_TOKENS
    return 16, 32, 64, 128


def _on_one_gpu(checkpoint: Checkpoint, gpus: int) -> Checkpoint:
    heads = checkpoint.kv_heads or gpus
    attention = tuple(
        replace(kind, kv_width=max(kind.kv_width // heads, kind.kv_width // gpus))
        for kind in checkpoint.attention
    )
    return replace(checkpoint, attention=attention, state_bytes=checkpoint.state_bytes // gpus)


def set_lengths(planner: VllmPlanner, context: int, batch: int) -> None:
    """Set what vLLM reads of a context and of a step."""
    planner.config.model_config.max_model_len = context
    planner.config.scheduler_config.max_num_batched_tokens = batch


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
        set_lengths(planner, context, model.batch_tokens)
        least = planner.least_bytes(layer_specs(checkpoint, values, usual))
        tally.over.append(footprint(alone, checkpoint, "gpu").kv / least - 1)


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
        set_lengths(planner, context, batch)
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
    assert shapes()
    pretend_gpu()
    tally = Tally()
    match sys.argv[1:]:
        case ["--write"]:
            write_figures()
        case ["presets"]:
            check_presets(tally)
        case ["random", *more]:
            check_random(tally, int(more[0]) if more else 300, int(more[1]) if more[1:] else 0)
        case _:
            sys.exit(__doc__)
    print(tally)
    sys.exit(1 if tally.refused else 0)


if __name__ == "__main__":
    main()
