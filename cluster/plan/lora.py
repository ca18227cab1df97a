"""Facts about the LoRA adapters of a model, and the bytes that vLLM reserves for them. Pure, but for
the headers of the adapters' files.

vLLM puts room for adapters beside every matrix that an adapter may change (vllm/lora/model_manager.py,
_create_lora_modules; vllm/lora/layers/base_linear.py, create_lora_weights): for each adapter two
matrices of the largest rank, one as wide as the input and one as wide as the output. Projections that
vLLM merges (queries, keys and values; gate and up) get room for all parts if an adapter has one of
them. Adapters that are not in use stay in the host's RAM; here all are always in use.

On a CPU, vLLM 0.32 takes the last adapter for the model itself. In a batch with calls of adapters, a
call of the model has the index -1 (vllm/lora/punica_wrapper/utils.py, convert_mapping), which PyTorch
reads as the last one (vllm/lora/ops/torch_ops/lora_ops.py, bgmv_shrink; vllm#48421). vLLM 0.33 leaves
-1 out. So on a CPU vLLM gets room for one adapter more. That room comes last and stays full of zeros.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.cards.card import Kind
from cluster.plan.safetensors import NotSafetensors, tensor_shapes
from configs.errors import UserError

CONFIG = "adapter_config.json"
"""The file in which PEFT says what kind of adapter a folder has."""
WEIGHTS = "adapter_model.safetensors"
"""The file with an adapter's weights. vLLM also reads pickles, which can run code."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks for which vLLM can reserve room (vllm/config/lora.py, MaxLoRARanks)."""
MERGED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections that vLLM merges. Of those that an adapter lacks, the width is taken to be that of the
narrowest that it has."""
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways to begin the training of an adapter that leave the model's own weights as they are
(vllm/lora/peft_helper.py, _init_is_supported)."""
UNSUPPORTED = {
    "use_dora": "it is a DoRA adapter",
    "lora_bias": "it has biases (lora_bias)",
    "alora_invocation_tokens": "it is an activated LoRA (aLoRA)",
    "layer_replication": "it repeats layers of the model (layer_replication)",
    "use_bdlora": "it is block-diagonal (BD-LoRA)",
    "use_qalora": "it is a QALoRA adapter",
    "modules_to_save": "it replaces whole modules of the model (modules_to_save)",
}
"""Keys of `adapter_config.json` for what vLLM 0.33 refuses (vllm/lora/peft_helper.py)."""
TENSOR = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight$")
"""The name of a matrix of an adapter: the module that it changes, and which of the two it is."""


class BadAdapter(UserError):
    """An adapter's files cannot be understood, or vLLM cannot run the adapter."""


@dataclass(frozen=True, slots=True)
class Module:
    """A matrix of the model that adapters change."""

    name: str
    """Its name in the model, such as `model.layers.0.self_attn.q_proj`."""
    inputs: int
    outputs: int

    @property
    def suffix(self) -> str:
        """The last part of the name: `q_proj`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """Facts about one adapter."""

    rank: int
    """The largest rank of its matrices."""
    base: str | None
    """The model for which it was made, as its makers name the model; None if they do not."""
    modules: tuple[Module, ...]
    stored_bytes: int
    """Bytes of its weights."""


@dataclass(frozen=True, slots=True)
class Lora:
    """What the adapters of one model take together."""

    slots: int
    """For how many adapters room is reserved. All have theirs at once."""
    rank: int
    """The rank for which room is reserved."""
    modules: tuple[Module, ...] = ()
    """All matrices for which room is reserved."""
    value_bytes: int = 2
    """Bytes of a value in the room. Its number type is that of the model (LoRAConfig.lora_dtype)."""
    stored_bytes: int = 0
    """Bytes of the weights of all adapters, which the engine's process also keeps in the host's RAM."""

    def on(self, kind: Kind) -> "Lora":
        """What the adapters take on this kind of card: on a CPU with the room that stays empty."""
        return replace(self, slots=self.slots + 1) if kind == "cpu" else self

    def tensors(self, gpus: int = 1) -> Counter[int]:
        """How many tensors of an engine on each of `gpus` GPUs have which number of bytes."""
        found: Counter[int] = Counter()
        for module in self.modules:
            # vLLM splits one of the two matrices over the GPUs. The larger result is taken.
            outputs, inputs = -(-module.outputs // gpus), -(-module.inputs // gpus)
            first, second = max(
                (module.inputs, outputs), (inputs, module.outputs), key=lambda pair: sum(pair)
            )
            found[self.slots * self.rank * first * self.value_bytes] += 1
            found[self.slots * self.rank * second * self.value_bytes] += 1
        return found

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are reserved beside the weights of the model, on one GPU or on a CPU."""
        return sum(size * count for size, count in self.tensors().items())


def read_adapter(folder: Path) -> AdapterFacts:
    """Read `adapter_config.json` and the header of the weights beside it.

    Raises:
        BadAdapter: a file is missing or broken, or vLLM cannot run the adapter; the message says why.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        shapes = tensor_shapes(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError, NotSafetensors) as error:
        raise BadAdapter(f"cannot understand the adapter in {folder.name!r}: {error}") from error
    return adapter_facts(config, shapes, folder.name)


def adapter_facts(
    config: Any, shapes: Mapping[str, tuple[tuple[int, ...], int]], name: str
) -> AdapterFacts:
    """Facts about an adapter from its configuration, and from the shapes and bytes of its tensors.

    Raises:
        BadAdapter: vLLM cannot run the adapter.
    """
    if not isinstance(config, dict):
        raise BadAdapter(f"adapter {name!r}: {CONFIG} is not a mapping")
    rank = _rank(config, name)
    if (reason := _refusal(config, shapes)) is not None:
        raise BadAdapter(f"vLLM cannot run the adapter {name!r}: {reason}")
    base = config.get("base_model_name_or_path")
    return AdapterFacts(
        rank=rank,
        base=base if isinstance(base, str) and base else None,
        modules=_modules(shapes, name),
        stored_bytes=sum(size for _, size in shapes.values()),
    )


def _rank(config: Mapping[str, Any], name: str) -> int:
    """The largest rank of an adapter."""
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [pattern])]
    for rank in ranks:
        if type(rank) is not int or not 1 <= rank <= RANKS[-1]:
            raise BadAdapter(
                f"vLLM cannot run the adapter {name!r}: its rank (r) is {rank!r:.40}, and whole "
                f"numbers from 1 to {RANKS[-1]} are allowed"
            )
    return max(rank for rank in ranks if isinstance(rank, int))


def _refusal(config: Mapping[str, Any], tensors: Iterable[str]) -> str | None:
    """Why vLLM cannot run an adapter; None if it can."""
    kind = config.get("peft_type", "LORA")
    if not isinstance(kind, str) or kind.upper() != "LORA":
        return f"its peft_type is {kind!r:.40}, and only LORA is known"
    for key, reason in UNSUPPORTED.items():
        if config.get(key):
            return reason
    if config.get("bias", "none") != "none":
        return f"it has biases (bias: {config['bias']!r:.40})"
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        return (
            f"its training changed the weights of the model too (init_lora_weights: {init!r:.40}); "
            "convert it with PEFT's path_initial_model_for_weight_conversion"
        )
    for tensor in tensors:
        if "lora_embedding_" in tensor or ".embed_tokens." in tensor or ".lm_head." in tensor:
            return "it changes embeddings or the output layer, for which no room is planned"
        if ".experts." in tensor:
            return "it changes the experts of a mixture of experts, for which no room is planned"
        if not TENSOR.match(tensor):
            return f"nothing is known of its tensor {tensor!r:.120}"
    return None


def _modules(shapes: Mapping[str, tuple[tuple[int, ...], int]], name: str) -> tuple[Module, ...]:
    """The matrices that an adapter changes."""
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    for tensor, (shape, _) in shapes.items():
        matched = TENSOR.match(tensor)
        assert matched is not None
        if len(shape) != 2:
            raise BadAdapter(f"adapter {name!r}: {tensor!r:.120} is no matrix")
        if matched[2] == "A":
            inputs[matched[1]] = shape[1]
        else:
            outputs[matched[1]] = shape[0]
    if not inputs or inputs.keys() != outputs.keys():
        raise BadAdapter(f"adapter {name!r}: its matrices lora_A and lora_B do not make pairs")
    return tuple(Module(each, inputs[each], outputs[each]) for each in inputs)


def joined(adapters: Sequence[AdapterFacts], value_bytes: int = 2) -> Lora:
    """What adapters take together, as the adapters of one model.

    Args:
        adapters: the adapters; at least one.
        value_bytes: see `Lora.value_bytes`.
    """
    most = max(each.rank for each in adapters)
    found = {module.name: module for each in adapters for module in each.modules}
    # vLLM is told of the kinds of matrices alone, and reserves room in every layer that has some.
    return Lora(
        slots=len(adapters),
        rank=next(rank for rank in RANKS if rank >= most),
        modules=tuple(_with_merged(found)),
        value_bytes=value_bytes,
        stored_bytes=sum(each.stored_bytes for each in adapters),
    )


def _with_merged(found: Mapping[str, Module]) -> Iterable[Module]:
    """The modules, and those that vLLM merges with them."""
    yield from found.values()
    for group in MERGED:
        parents = {m.name.removesuffix(m.suffix) for m in found.values() if m.suffix in group}
        for parent in sorted(parents):
            present = [found[parent + suffix] for suffix in group if parent + suffix in found]
            least = min(present, key=lambda module: module.outputs)
            for suffix in group:
                if parent + suffix not in found:
                    yield Module(parent + suffix, least.inputs, least.outputs)


def target_modules(lora: Lora) -> list[str]:
    """The kinds of matrices that adapters change, as vLLM takes them (`lora_target_modules`)."""
    return sorted({module.suffix for module in lora.modules})
