"""Makes folders for tests with vLLM: a copy of a checkpoint that thinks, and LoRA adapters."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

FOLDERS = Path("build/vllm")
"""Where the checkpoints are kept between runs."""
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The matrices that the adapters change."""


def checkpoint(name: str) -> Path:
    """The folder of a model of `tiny_cpu` in bf16, which is made from the GGUF file if it is not there.

    The checkpoints of `vllm_cpu` in 4 bits take minutes to make, and these seconds.
    """
    import torch

    from benchmarks.real_cards.quantize import unpacked

    folder = FOLDERS / f"{name}-bf16"
    if not (folder / "config.json").is_file():
        model, tokenizer = unpacked(name, "tiny_cpu")
        tokenizer.save_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)
    return folder.resolve()


def four_bits(name: str) -> Path:
    """The folder of a model of `vllm_cpu`, which is made from the GGUF file if it is not there."""
    from benchmarks.real_cards.quantize import quantize_model

    folder = FOLDERS / name
    if not (folder / "config.json").is_file():
        quantize_model(name, "tiny_cpu", folder)
    return folder.resolve()


def thinker(source: Path, target: Path, template: str, tokens: Mapping[str, str]) -> Path:
    """Copy a checkpoint, with another chat template and other texts of some tokens.

    Args:
        source: the checkpoint.
        target: the copy, which must not be there.
        template: the copy's chat template.
        tokens: the new text of a token by its old text.
    """
    shutil.copytree(source, target)
    for file in target.glob("*.json"):
        text = file.read_text("utf-8")
        for old, new in tokens.items():
            text = text.replace(json.dumps(old), json.dumps(new))
        file.write_text(text, "utf-8")
    config = target / "tokenizer_config.json"
    settings = json.loads(config.read_text("utf-8"))
    settings.pop("chat_template", None)
    config.write_text(json.dumps(settings), "utf-8")
    (target / "chat_template.jinja").write_text(template, "utf-8")
    return target


def adapter(source: Path, target: Path, seed: int, rank: int = 8, scale: float = 0.05) -> Path:
    """Write a random LoRA adapter over a checkpoint, as PEFT writes adapters.

    Args:
        source: the checkpoint.
        target: the adapter's folder.
        seed: fixes the adapter's numbers.
        rank: the adapter's rank.
        scale: the standard deviation of the numbers. The larger it is, the more the texts change.
    """
    import torch
    from safetensors.torch import save_file

    config = json.loads((source / "config.json").read_text("utf-8"))
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    keys = config["num_key_value_heads"] * size
    shapes = {
        "q_proj": (hidden, heads * size),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (heads * size, hidden),
    }
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name in PROJECTIONS:
            inputs, outputs = shapes[name]
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for part, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                values = torch.randn(shape, generator=generator) * scale
                tensors[f"{module}.lora_{part}.weight"] = values.to(torch.bfloat16)
    target.mkdir(parents=True)
    save_file(tensors, target / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    about |= {"target_modules": list(PROJECTIONS), "base_model_name_or_path": source.name}
    (target / "adapter_config.json").write_text(json.dumps(about), "utf-8")
    return target
