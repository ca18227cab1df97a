"""What a model's files say of it: bytes as stored, and the shape that decides everything else.

Read from the headers of real files (config.json with safetensors, or GGUF), or, for the public
checkpoints that the presets name, from `configs/shapes.json`. Weights are never loaded.
"""

import json
import struct
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cluster.plan.gguf import Header, NotGguf, read_header
from configs.errors import UserError

# Of so many layers in a row, all but one attend to a window only. Hugging Face configs of these
# families did not always say so, and GGUF files do not.
WINDOWED = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "gpt-oss": 2}


class UnknownCheckpoint(UserError):
    """Files that cannot be understood, or a checkpoint of which neither files nor shape are here."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The facts of one set of weights.

    weight_bytes: of all tensors; lookup_bytes: of those, the input embeddings, of which a token
    reads one row; query_width: heads times their size; kv_width: values that one token leaves in
    the cache of one layer; ffn: width of one expert; window_tokens: what `window_layers` of the
    layers see; most_tokens: the longest context it was made for; heads: of queries; kv_heads: of
    keys and values in the cache; 0 if unknown.
    """

    weight_bytes: int
    layers: int
    hidden: int
    ffn: int
    vocab: int
    query_width: int
    kv_width: int
    lookup_bytes: int = 0
    experts: int = 1
    experts_used: int = 1
    window_tokens: int = 0
    window_layers: int = 0
    most_tokens: int = 0
    heads: int = 0
    kv_heads: int = 0

    @property
    def quantized(self) -> bool:
        """Whether weights take clearly less than 16 bits each."""
        return self.bits < 12

    @property
    def bits(self) -> float:
        """Stored bits per parameter, on average."""
        tables = 1 if self.lookup_bytes == 0 else 2
        parameters = self._dense + self._expert * self.experts + tables * self.vocab * self.hidden
        return 8 * self.weight_bytes / parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that take part in one token: two operations each."""
        return self._dense + self._expert * self.experts_used + self.vocab * self.hidden

    def read_bytes(self, tokens: int) -> float:
        """Bytes of weights that a step over so many tokens reads: of experts, those that are hit."""
        read = self.weight_bytes - self.lookup_bytes
        if self.experts == 1:
            return read
        hit = 1 - (1 - self.experts_used / self.experts) ** tokens
        every = self._expert * self.experts
        return read * (1 - (1 - hit) * every / (every + self._dense + self.vocab * self.hidden))

    def splits(self, gpus: int) -> bool:
        """Whether vLLM can split it over so many GPUs: each takes whole heads, or, of keys and values,
        a copy of one, and an equal part of every expert (vllm/distributed/utils.py: divide)."""
        if not self.heads:
            return True
        cached = self.kv_heads % gpus == 0 or gpus % self.kv_heads == 0
        return cached and self.heads % gpus == 0 and self.ffn % gpus == 0

    @property
    def _dense(self) -> int:
        return self.layers * self.hidden * (2 * self.query_width + self.kv_width)

    @property
    def _expert(self) -> int:
        return self.layers * 3 * self.hidden * self.ffn


def from_folder(folder: Path) -> Checkpoint:
    """From config.json and the headers of the safetensors files beside it.

    Raises:
        UnknownCheckpoint: something is missing there, or broken.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        sizes = [safetensors_sizes(file) for file in sorted(folder.glob("*.safetensors"))]
        if not sizes:
            raise UnknownCheckpoint(f"no safetensors files in {folder.name!r}")
        tensors = {name: size for part in sizes for name, size in part.items()}
        lookup = 0
        if any("lm_head" in name for name in tensors):
            lookup = sum(size for name, size in tensors.items() if "embed_tokens" in name)
        return from_config(config, sum(tensors.values()), lookup)
    except (OSError, KeyError, TypeError, struct.error, json.JSONDecodeError) as error:
        raise UnknownCheckpoint(f"cannot understand the model in {folder.name!r}: {error}") from error


def safetensors_sizes(file: Path) -> dict[str, int]:
    """Bytes of each tensor of a safetensors file: 8 bytes of length, then JSON with offsets."""
    with file.open("rb") as data:
        (length,) = struct.unpack("<Q", data.read(8))
        header = json.loads(data.read(length))
    header.pop("__metadata__", None)
    return {name: t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items()}


def from_config(config: dict[str, Any], weight_bytes: int, lookup_bytes: int) -> Checkpoint:
    """From the keys of a Hugging Face config.json (its text part, if it has several)."""
    config = config.get("text_config", config)
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    windows = _window_layers(config)
    return Checkpoint(
        weight_bytes=weight_bytes,
        lookup_bytes=lookup_bytes,
        layers=layers,
        hidden=config["hidden_size"],
        ffn=config.get("moe_intermediate_size") or config["intermediate_size"],
        vocab=config["vocab_size"],
        query_width=heads * head,
        kv_width=_kv_width(config, heads, head),
        experts=config.get("num_local_experts") or config.get("num_experts") or 1,
        experts_used=config.get("num_experts_per_tok") or 1,
        window_tokens=config["sliding_window"] if windows else 0,
        window_layers=windows,
        most_tokens=config.get("max_position_embeddings") or 0,
        heads=heads,
        kv_heads=1 if config.get("kv_lora_rank") else config.get("num_key_value_heads") or heads,
    )


def _kv_width(config: dict[str, Any], heads: int, head: int) -> int:
    if config.get("kv_lora_rank"):  # multi-head latent attention: one latent and one rotary key
        return int(config["kv_lora_rank"] + config["qk_rope_head_dim"])
    return int(2 * head * (config.get("num_key_value_heads") or heads))


def _window_layers(config: dict[str, Any]) -> int:
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return 0
    layers: int = config["num_hidden_layers"]
    if "layer_types" in config:
        return int(config["layer_types"].count("sliding_attention"))
    every = WINDOWED.get(config.get("model_type", ""))
    return layers - layers // every if every else layers


def from_gguf(file: Path) -> Checkpoint:
    """From the header of a GGUF file.

    Raises:
        UnknownCheckpoint: it is not GGUF, or lacks what every language model's file has.
    """
    try:
        return _from_header(read_header(file))
    except (OSError, NotGguf, KeyError, TypeError, ValueError) as error:
        raise UnknownCheckpoint(f"cannot understand {file.name!r}: {error}") from error


def _from_header(header: Header) -> Checkpoint:
    metadata, sizes = header.metadata, {t.name: t.stored_bytes for t in header.tensors}
    family = metadata["general.architecture"]

    def has(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{family}.{key}", default)
        return max(value) if isinstance(value, list) else value  # one per layer: the largest

    heads, hidden, layers = has("attention.head_count"), has("embedding_length"), has("block_count")
    key = has("attention.key_length", hidden // heads)
    values = has("attention.value_length", key)
    windows = layers - layers // WINDOWED[family] if family in WINDOWED else 0
    return Checkpoint(
        weight_bytes=sum(sizes.values()),
        lookup_bytes=sizes["token_embd.weight"] if "output.weight" in sizes else 0,
        layers=layers,
        hidden=hidden,
        ffn=has("expert_feed_forward_length") or has("feed_forward_length"),
        vocab=has("vocab_size") or metadata["tokenizer.ggml.tokens"],
        query_width=heads * key,
        kv_width=has("attention.head_count_kv", heads) * (key + values),
        experts=has("expert_count") or 1,
        experts_used=has("expert_used_count") or 1,
        window_tokens=has("attention.sliding_window", 0) if windows else 0,
        window_layers=windows,
        most_tokens=has("context_length", 0),
    )


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """The bundled shapes by Hub repository."""
    text = resources.files("configs").joinpath("shapes.json").read_text("utf-8")
    return {name: shape for name, shape in json.loads(text).items() if not name.startswith("_")}


def from_shapes(hub: str) -> Checkpoint | None:
    """The bundled shape of a Hub repository, if there is one."""
    shape = shapes().get(hub)
    if shape is None:
        return None
    return from_config(shape["config"], shape["weight_bytes"], shape["lookup_bytes"])


def scripted(weight_bytes: int) -> Checkpoint:
    """Of an engine that has no weights and takes room as if it had."""
    return Checkpoint(weight_bytes, layers=1, hidden=1, ffn=1, vocab=1, query_width=1, kv_width=1)
