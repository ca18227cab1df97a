"""Folders of LoRA adapters, for tests: real headers, and tensors that are all zero."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HIDDEN = 64


def adapter(
    folder: Path,
    modules: Sequence[str] = ("q_proj", "v_proj"),
    rank: int = 8,
    layers: int = 2,
    outputs: Mapping[str, int] = {"k_proj": 16, "v_proj": 16},
    inputs: int = HIDDEN,
    tensors: Mapping[str, tuple[int, ...]] = {},
    **config: Any,
) -> Path:
    """Write an adapter as PEFT does, in numbers of 16 bits.

    Args:
        folder: where to write.
        modules: the matrices of each layer that it changes.
        rank: its rank.
        layers: number of layers.
        outputs: outputs of the matrices that have not `inputs` of them.
        inputs: inputs of all matrices.
        tensors: shapes of further tensors.
        config: further keys of `adapter_config.json`.
    """
    shapes = dict(tensors)
    for layer in range(layers):
        for module in modules:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            shapes[f"{name}.lora_A.weight"] = (rank, inputs)
            shapes[f"{name}.lora_B.weight"] = (outputs.get(module, HIDDEN), rank)
    header, at = {}, 0
    for tensor, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header).encode()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": list(modules)}
    (folder / "adapter_config.json").write_text(json.dumps(about | config))
    return folder
