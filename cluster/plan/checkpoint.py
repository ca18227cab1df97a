"""Facts about a set of weights: the stored bytes, and the shape that decides all other sizes.

They are read from the headers of real files (config.json with safetensors, or GGUF), or from
`configs/shapes.json` for the public checkpoints that the presets name. Weights are never loaded.
"""

import json
import struct
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from cluster.plan.gguf import Header, NotGguf, read_header
from configs.errors import UserError

WINDOWED = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "gpt_oss": 2, "gpt-oss": 2}
"""By family of models, a number n: of every n layers in a row, all but one attend to a window only.
Older Hugging Face configs of these families do not tell which layers these are, nor do GGUF files."""


class UnknownCheckpoint(UserError):
    """A checkpoint's files cannot be understood, or it has neither files here nor a bundled shape."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The layers of one kind: those that leave equally many values in the KV cache, for as long."""

    layers: int
    """Number of these layers."""
    kv_width: int
    """Number of values that one token leaves in the KV cache of one of these layers."""
    window_tokens: int = 0
    """Latest tokens that these layers attend to; 0 if they attend to all. A chunk counts as a window."""
    value_bytes: int = 0
    """Bytes of one value where they are fixed; 0 if the number type of the KV cache decides. They are
    fixed for the keys of an indexer, which chooses the tokens that sparse attention reads."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts about one set of weights: its stored bytes and the model's shape."""

    weight_bytes: int
    """Bytes of all tensors."""
    layers: int
    hidden: int
    """Width of a hidden state."""
    ffn: int
    """Width of the feed-forward network; in a mixture of experts, that of one expert."""
    vocab: int
    """Number of tokens in the vocabulary."""
    query_width: int
    """Number of query heads times the size of one head."""
    attention: tuple[Attention, ...]
    """The layers that have a KV cache, by kind. Layers with a state of fixed size are not among them, and
    a layer with an indexer is among them twice: the keys of the indexer are a kind of their own."""
    lookup_bytes: int = 0
    """Bytes of the input embeddings; 0 if the output layer uses the same. A token reads one row."""
    experts: int = 1
    """Experts of a layer; 1 for a model without experts."""
    experts_used: int = 1
    """Experts of a layer that one token uses."""
    most_tokens: int = 0
    """Tokens of the longest context that the model was made for; 0 if unknown."""
    heads: int = 0
    """Number of query heads; 0 if unknown."""
    kv_heads: int = 0
    """Number of heads of keys and values in the KV cache; 0 if unknown."""
    state_bytes: int = 0
    """Bytes of the states that linear attention and Mamba keep for one sequence, all layers together."""
    state_layers: int = 0
    """Number of layers that keep such a state."""
    kv_dtype: str | None = None
    """Number type of the KV cache that the checkpoint asks for, in vLLM's words, such as "fp8"."""
    quantization: str | None = None
    """vLLM's name of the method by which the weights are quantized; None if they are not."""
    tensor_bytes: tuple[int, ...] = ()
    """Bytes of each stored tensor; empty if only the shape is known."""
    padding_bytes: int = 0
    """Bytes that vLLM adds on a GPU when it loads the weights, because its kernels want larger tensors."""
    dense_parameters: int = 0
    """Parameters that compute every token, without the tables of tokens; 0 if the model is an ordinary
    one, whose other fields give this number."""
    expert_parameters: int = 0
    """Parameters of all experts that a router chooses from. It counts only beside `dense_parameters`."""

    @property
    def is_quantized(self) -> bool:
        """Whether a weight takes clearly less than 16 bits."""
        return self.bits < 12

    @property
    def bits(self) -> float:
        """Stored bits per parameter, on average. The shape gives the number of parameters."""
        tables = 1 if self.lookup_bytes == 0 else 2
        parameters = self._dense + self._experts + tables * self.vocab * self.hidden
        return 8 * self.weight_bytes / parameters

    @property
    def active_parameters(self) -> int:
        """Number of parameters that compute one token. Each of them takes two operations."""
        used = self._experts * self.experts_used // self.experts
        return self._dense + used + self.vocab * self.hidden

    def read_bytes(self, tokens: int) -> float:
        """Bytes of weights that a step over `tokens` tokens reads, on average.

        A step reads each expert that at least one token uses. Tokens are taken to choose at random.
        """
        read = self.weight_bytes - self.lookup_bytes
        if self.experts == 1:
            return read
        hit = 1 - (1 - self.experts_used / self.experts) ** tokens
        every = self._experts
        return read * (1 - (1 - hit) * every / (every + self._dense + self.vocab * self.hidden))

    def can_split(self, gpus: int) -> bool:
        """Whether vLLM can split the model over `gpus` GPUs; true if the heads are unknown.

        Each GPU gets whole query heads, whole heads of keys and values or a copy of one of them, and an
        equal part of every feed-forward network (vllm/distributed/utils.py: divide).
        """
        if not self.heads:
            return True
        cached = self.kv_heads % gpus == 0 or gpus % self.kv_heads == 0
        return cached and self.heads % gpus == 0 and self.ffn % gpus == 0

    @property
    def _dense(self) -> int:
        if self.dense_parameters:
            return self.dense_parameters
        kept = sum(kind.layers * kind.kv_width for kind in self.attention)
        return self.hidden * (2 * self.layers * self.query_width + kept)

    @property
    def _experts(self) -> int:
        if self.dense_parameters:
            return self.expert_parameters
        return self.layers * 3 * self.hidden * self.ffn * self.experts


def from_folder(folder: Path) -> Checkpoint:
    """Read config.json and the headers of the safetensors files beside it.

    Raises:
        UnknownCheckpoint: a file is missing or broken.
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
        found = from_config(config, sum(tensors.values()), lookup)
        return replace(found, tensor_bytes=tuple(tensors.values()))
    except (OSError, KeyError, TypeError, struct.error, json.JSONDecodeError) as error:
        raise UnknownCheckpoint(f"cannot understand the model in {folder.name!r}: {error}") from error


def safetensors_sizes(file: Path) -> dict[str, int]:
    """Bytes of each tensor of a safetensors file.

    Such a file begins with 8 bytes, the length of a JSON header that has the offsets of each tensor
    (github.com/huggingface/safetensors, "Format").
    """
    with file.open("rb") as data:
        (length,) = struct.unpack("<Q", data.read(8))
        header = json.loads(data.read(length))
    header.pop("__metadata__", None)
    return {name: t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items()}


def from_config(config: dict[str, Any], weight_bytes: int, lookup_bytes: int) -> Checkpoint:
    """Make a checkpoint from a Hugging Face config.json, or from its text part if it has parts.

    Args:
        config: the parsed file.
        weight_bytes: bytes of all tensors.
        lookup_bytes: see `Checkpoint.lookup_bytes`.

    Raises:
        KeyError: a key is missing that every language model has.
    """
    config = config.get("text_config", config)
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    return Checkpoint(
        weight_bytes=weight_bytes,
        lookup_bytes=lookup_bytes,
        layers=layers,
        hidden=config["hidden_size"],
        ffn=config.get("moe_intermediate_size") or config["intermediate_size"],
        vocab=config["vocab_size"],
        query_width=heads * head,
        attention=_kinds(
            layers, _window_layers(config), _kv_width(config, heads, head), config.get("sliding_window")
        ),
        experts=config.get("num_local_experts") or config.get("num_experts") or 1,
        experts_used=config.get("num_experts_per_tok") or 1,
        most_tokens=config.get("max_position_embeddings") or 0,
        heads=heads,
        kv_heads=1 if config.get("kv_lora_rank") else config.get("num_key_value_heads") or heads,
    )


def _kinds(layers: int, windows: int, kv_width: int, tokens: int | None) -> tuple[Attention, ...]:
    """The layers that attend to all tokens, and those with a window of `tokens`."""
    kinds = (Attention(layers - windows, kv_width), Attention(windows, kv_width, tokens or 0))
    return tuple(kind for kind in kinds if kind.layers)


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
    """Read the header of a GGUF file.

    Raises:
        UnknownCheckpoint: the file is not GGUF, or it lacks a key that every language model has.
    """
    try:
        return _from_header(read_header(file))
    except (OSError, NotGguf, KeyError, TypeError, ValueError) as error:
        raise UnknownCheckpoint(f"cannot understand {file.name!r}: {error}") from error


def _from_header(header: Header) -> Checkpoint:
    metadata, sizes = header.metadata, {t.name: t.stored_bytes for t in header.tensors}
    family = metadata["general.architecture"]

    def value(key: str, default: Any = None) -> Any:
        found = metadata.get(f"{family}.{key}", default)
        return max(found) if isinstance(found, list) else found  # a list has one value per layer

    heads, hidden, layers = (
        value("attention.head_count"),
        value("embedding_length"),
        value("block_count"),
    )
    key = value("attention.key_length", hidden // heads)
    values = value("attention.value_length", key)
    windows = layers - layers // WINDOWED[family] if family in WINDOWED else 0
    return Checkpoint(
        weight_bytes=sum(sizes.values()),
        lookup_bytes=sizes["token_embd.weight"] if "output.weight" in sizes else 0,
        layers=layers,
        hidden=hidden,
        ffn=value("expert_feed_forward_length") or value("feed_forward_length"),
        vocab=value("vocab_size") or metadata["tokenizer.ggml.tokens"],
        query_width=heads * key,
        attention=_kinds(
            layers,
            windows,
            value("attention.head_count_kv", heads) * (key + values),
            value("attention.sliding_window"),
        ),
        experts=value("expert_count") or 1,
        experts_used=value("expert_used_count") or 1,
        most_tokens=value("context_length", 0),
    )


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """The bundled shapes by Hub repository: config keys, and the bytes of the weights."""
    text = resources.files("configs").joinpath("shapes.json").read_text("utf-8")
    return {name: shape for name, shape in json.loads(text).items() if not name.startswith("_")}


def from_shapes(hub: str) -> Checkpoint | None:
    """The checkpoint of a Hub repository by its bundled shape; None if no shape of it is bundled."""
    shape = shapes().get(hub)
    if shape is None:
        return None
    return from_config(shape["config"], shape["weight_bytes"], shape["lookup_bytes"])


def scripted_checkpoint(weight_bytes: int) -> Checkpoint:
    """A checkpoint for a scripted engine, which has no weights but is planned as if it had some."""
    return Checkpoint(weight_bytes, 1, 1, 1, 1, 1, (Attention(1, 1),))
