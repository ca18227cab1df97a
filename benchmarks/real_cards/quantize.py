"""A GGUF model -> a 4-bit folder that vLLM reads: compressed-tensors, weights int4, by groups.

    python -m benchmarks.real_cards.quantize --model smollm2-135m --out DIR

Really quantized, without calibration data: each group of weights is rounded to 15 steps around zero,
with the step that gives the least squared error. Embeddings, norms and the output layer stay bf16.
The source is already 4 bits in another format, so errors are those of the second rounding alone.
Deterministic: the same source gives the same bytes.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
)
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from actors.weights.files import fetch
from configs.load import load
from configs.schema import LlamaCppModel

GROUP_SIZES = (128, 64, 32)  # what vLLM's Marlin kernels take; the largest that divides is chosen
LARGEST, SMALLEST = 7, -8  # of four bits with a sign
CLIPS = tuple(1 - 0.025 * n for n in range(13))  # shares of a group's range that are tried
PROMPTS = (
    "Why is the sky blue?",
    "Write a Python function that reverses a string.",
    "Name three uses of copper.",
    "Explain in one sentence what a prime number is.",
)
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Report:
    """What was made. Errors: root of squared error over squared weights of a layer; agreement:
    share of tokens of the source's greedy answers that the 4-bit model would write as well;
    perplexity: of those answers."""

    model: str
    group_size: int
    layers: int
    source_bytes: int
    bf16_bytes: int
    folder_bytes: int
    mean_error: float
    worst_error: float
    worst_layer: str
    agreement: float
    perplexity_source: float
    perplexity_4bit: float


def quantize_model(name: str, recipe: str, out: Path, group_size: int | None = None) -> Report:
    """Make the folder `out` from the GGUF weights of a model of a recipe."""
    source = _gguf(name, recipe)
    model, tokenizer = _from_gguf(source)
    linears = dict(_linears(model))
    size = group_size or common_group_size(layer.in_features for layer in linears.values())
    scheme = _scheme(size)

    answers = [_greedy(model, tokenizer, prompt) for prompt in PROMPTS]
    choices, perplexity_source = _judge(model, answers)
    errors: dict[str, float] = {}
    packed: dict[str, torch.Tensor] = {}
    for path, layer in linears.items():
        tensors = pack(layer.weight.data, size, scheme)
        rounded = PackedQuantizationCompressor.decompress(dict(tensors), scheme)["weight"].float()
        errors[path] = float((rounded - layer.weight.data).norm() / layer.weight.data.norm())
        packed |= {f"{path}.{key}": tensor for key, tensor in tensors.items()}
        layer.weight.data = rounded  # so that the model can be judged as vLLM will run it
    choices_4bit, perplexity_4bit = _judge(model, answers)

    bf16_bytes = 2 * sum(parameter.numel() for parameter in model.parameters())
    _write(out, model, tokenizer, packed, scheme)
    worst = max(errors, key=lambda path: errors[path])
    return Report(
        model=name,
        group_size=size,
        layers=len(errors),
        source_bytes=source.stat().st_size,
        bf16_bytes=bf16_bytes,
        folder_bytes=sum(file.stat().st_size for file in out.iterdir()),
        mean_error=sum(errors.values()) / len(errors),
        worst_error=errors[worst],
        worst_layer=worst,
        agreement=float((choices == choices_4bit).float().mean()),
        perplexity_source=perplexity_source,
        perplexity_4bit=perplexity_4bit,
    )


def unpacked(name: str, recipe: str) -> tuple[Any, Any]:
    """A model of a recipe and its tokenizer, as transformers has them, from the GGUF weights."""
    return _from_gguf(_gguf(name, recipe))


def common_group_size(widths: Iterable[int]) -> int:
    """The largest group size that divides all the widths.

    Raises:
        ValueError: none does.
    """
    all_widths = set(widths)
    for size in GROUP_SIZES:
        if all(width % size == 0 for width in all_widths):
            return size
    raise ValueError(f"no group size of {GROUP_SIZES} divides all the widths {sorted(all_widths)}")


def pack(weight: torch.Tensor, group_size: int, scheme: QuantizationScheme) -> dict[str, torch.Tensor]:
    """The weight in four bits: eight values in each int32, and a bf16 scale for each group."""
    tensors = {"weight": weight, "weight_scale": best_scales(weight, group_size)}
    return dict(PackedQuantizationCompressor.compress(tensors, scheme))


def best_scales(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """For each group the bf16 step, out of CLIPS, whose rounding errs least."""
    groups = weight.float().unflatten(-1, (-1, group_size))
    full = groups.abs().amax(-1, keepdim=True).clamp(min=1e-8) / ((LARGEST - SMALLEST) / 2)
    best, least = full, torch.full_like(full, torch.inf)
    for clip in CLIPS:
        scale = (full * clip).bfloat16().float()
        rounded = (groups / scale).round().clamp(SMALLEST, LARGEST) * scale
        error = (rounded - groups).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best.squeeze(-1).bfloat16()


def _gguf(name: str, recipe: str) -> Path:
    model = load(recipe).models.get(name)
    if not isinstance(model, LlamaCppModel):
        raise SystemExit(f"recipe {recipe!r} has no llama.cpp model {name!r}")
    return fetch(name, model.weights)


def _from_gguf(file: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # it would keep GGUF's blocks otherwise
    )
    return model.eval(), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def _linears(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            yield path, module


def _scheme(group_size: int) -> QuantizationScheme:
    weights = QuantizationArgs(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=group_size
    )
    return QuantizationScheme(targets=["Linear"], weights=weights)


def _greedy(model: Any, tokenizer: Any, prompt: str) -> tuple[torch.Tensor, int]:
    """The model's answer as tokens, prompt included, and where the answer begins."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    tokens = model.generate(ids, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    return tokens, ids.shape[1]


def _judge(model: Any, answers: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, float]:
    """For each token of the answers: what the model would write there; and its perplexity."""
    choices, losses = [], []
    for tokens, start in answers:
        with torch.inference_mode():
            logits = model(tokens).logits[0, start - 1 : -1]
        choices.append(logits.argmax(-1))
        losses.append(torch.nn.functional.cross_entropy(logits, tokens[0, start:], reduction="none"))
    return torch.cat(choices), float(torch.cat(losses).mean().exp())


def _write(
    out: Path, model: Any, tokenizer: Any, packed: dict[str, torch.Tensor], scheme: QuantizationScheme
) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tensors = {}
    for key, tensor in model.state_dict().items():
        if f"{key}_packed" in packed:
            continue
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        tensors[key] = tensor.bfloat16().contiguous()
    save_file(tensors | packed, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config |= {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    config["quantization_config"] = QuantizationConfig(
        config_groups={"group_0": scheme},
        format="pack-quantized",
        ignore=["lm_head"],
        quantization_status=QuantizationStatus.COMPRESSED,
    ).model_dump(mode="json")
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    tokenizer.save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True, help="a llama.cpp model of the recipe")
    parser.add_argument("--recipe", default="tiny_cpu", help="a preset or a recipe file")
    parser.add_argument("--out", required=True, type=Path, help="folder to make, or to make anew")
    parser.add_argument("--group-size", type=int, choices=GROUP_SIZES, help="by default what divides")
    options = parser.parse_args(arguments)
    report = quantize_model(options.model, options.recipe, options.out, options.group_size)
    json.dump(asdict(report), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
