"""Model folders without weights, in the shape of real checkpoints, for vLLM's `load_format: dummy`.

Memory, speed and swaps are those of the real model; its texts are noise. The safetensors file has the
header and the size of the real one, and is a hole from there on, which takes no space on the disk:
planning reads the header, and dummy loading never opens the file.
"""

import json
import struct
from pathlib import Path
from typing import Any

from benchmarks.real_cards.dummy_tensors import stored_bytes, tensors
from configs.errors import UserError

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
"""The class that vLLM runs a family of models with, by the `model_type` of its config.json."""
AWQ = {"zero_point": True, "version": "gemm"}
"""What every public AWQ checkpoint says beside its bits."""
NOT_QUANTIZED = {"mixtral": ["gate"]}
"""The modules that AWQ checkpoints of a family leave in 16 bits, beside embeddings and output."""
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The chat template."""
SPECIALS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
"""The special tokens; the first one ends an answer."""
TINY: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128},
}
"""The config of a model for checks on a CPU."""


class UnknownShape(UserError):
    """There is no way to make random weights in the shape of a model."""


def write(folder: Path, config: dict[str, Any], dtype: str) -> Path:
    """Make the folder of a model from its config, as `configs/shapes.json` has them.

    Raises:
        UnknownShape: the family of the model is not among ARCHITECTURES.
    """
    write_shape(folder, config, dtype)
    _write_tokenizer(folder, config["vocab_size"])
    return folder


def write_shape(folder: Path, config: dict[str, Any], dtype: str) -> None:
    """Write config.json and the header of the weights: what planning reads.

    Raises:
        UnknownShape: the family of the model is not among ARCHITECTURES.
    """
    family = config.get("model_type")
    if family not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnknownShape(f"no random weights for model_type {family!r}; there are: {known}")
    folder.mkdir(parents=True, exist_ok=True)
    written = dict(config)
    if quantized := config.get("quantization_config"):
        left_out = {"modules_to_not_convert": NOT_QUANTIZED[family]} if family in NOT_QUANTIZED else {}
        written["quantization_config"] = AWQ | left_out | quantized
    written |= {"architectures": [ARCHITECTURES[family]], "torch_dtype": dtype}
    written |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(written), "utf-8")
    _write_header(folder / "model.safetensors", config)


def _write_header(file: Path, config: dict[str, Any]) -> None:
    header, start = {}, 0
    for tensor in tensors(config):
        name, dtype, shape = tensor
        end = start + stored_bytes(tensor)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    with file.open("wb") as written:
        written.write(struct.pack("<Q", len(text)) + text)
        written.truncate(8 + len(text) + start)


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Bytes, and made-up words for the rest: every number that noise can give is some text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [f"Ġw{n}" for n in range(vocab_size - len(tokens))]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIALS[0],
        "pad_token": SPECIALS[0],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
