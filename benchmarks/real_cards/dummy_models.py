"""Model folders without weights, in the shape of real checkpoints, for vLLM's `load_format: dummy`.

Memory, speed and swaps are those of the real model; its texts are noise. The safetensors file has
a true header and no data: it is what planning reads, and dummy loading never opens it.
"""

import json
import struct
from pathlib import Path
from typing import Any

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "mistral": "MistralForCausalLM",
}
AWQ = {"zero_point": True, "version": "gemm"}  # what every public AWQ checkpoint says beside its bits
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TINY = {
    "config": {
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
    },
    # Embeddings and output in 16 bits; 4 layers of 589,824 weights in 4 bits with a scale of 16 and
    # a zero of 4 bits per group of 128; nine norms.
    "weight_bytes": 2 * 2 * 1024 * 256 + 4 * (589_824 // 2 + 589_824 // 128 * 5 // 2) + 9 * 512,
    "lookup_bytes": 2 * 1024 * 256,
}


def write(folder: Path, shape: dict[str, Any], dtype: str) -> Path:
    """Make the folder from a shape as `configs/shapes.json` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(shape["config"])
    if quantized := config.get("quantization_config"):
        config["quantization_config"] = AWQ | quantized
    config |= {"architectures": [ARCHITECTURES[config["model_type"]]], "torch_dtype": dtype}
    config |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    _write_header(folder / "model.safetensors", shape["weight_bytes"], shape["lookup_bytes"])
    _write_tokenizer(folder, config["vocab_size"])
    return folder


def _write_header(file: Path, weight_bytes: int, lookup_bytes: int) -> None:
    names = ["lm_head.weight", "model.embed_tokens.weight"]
    sizes = [weight_bytes - lookup_bytes, lookup_bytes]
    header, start = {}, 0
    for name, size in zip(names, sizes, strict=True):
        if size:
            header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)


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
