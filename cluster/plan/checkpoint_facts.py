"""Facts about a set of weights: the stored bytes, and the shape that decides all other sizes. Plain
data."""

from dataclasses import dataclass

from cluster.plan.lora import Lora


@dataclass(frozen=True, slots=True)
class Attention:
    """The layers of one kind: those that leave equally many values in the KV cache, for as long."""

    layers: int
    """Number of these layers."""
    kv_width: int
    """Number of values that one token leaves in the KV cache of one of these layers."""
    window_tokens: int = 0
    """Latest tokens that these layers attend to; 0 if they attend to all. A chunk counts as a
    window."""
    value_bytes: int = 0
    """Bytes of one value where they are fixed; 0 if the number type of the KV cache decides. They are
    fixed for the keys of an indexer, which chooses the tokens that sparse attention reads."""
    packed_bytes: int = 0
    """Bytes that one token leaves in an 8-bit cache, where its values are packed with scales; 0 if an
    8-bit cache has one byte for each value."""

    def token_bytes(self, value_bytes: int) -> int:
        """Bytes that one token leaves in one of these layers.

        Args:
            value_bytes: bytes of a value by the number type of the KV cache.
        """
        if value_bytes == 1 and self.packed_bytes:
            return self.packed_bytes
        return self.kv_width * (self.value_bytes or value_bytes)


@dataclass(frozen=True, slots=True)
class GgufBlock:
    """One layer of a GGUF file."""

    weight_bytes: int
    keys: int
    """Number of values of the keys that one token leaves in the cache of this layer; 0 without one."""
    values: int
    """The same for the values."""
    window_tokens: int = 0
    """Latest tokens that the layer attends to; 0 if it attends to all."""
    state_bytes: int = 0
    """Bytes of the state that the layer keeps for one sequence."""


@dataclass(frozen=True, slots=True)
class GgufLayout:
    """Where the bytes of a GGUF file are, so that they can be divided between devices."""

    input_bytes: int
    """Bytes of the tables of which a token reads a row, such as the input embeddings."""
    output_bytes: int
    """Bytes of the output layer and its norm."""
    blocks: tuple[GgufBlock, ...]
    """The layers, in order."""
    tied_bytes: int = 0
    """Bytes of the input embeddings if the output layer uses them: a GPU gets a copy."""


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
    """The layers that have a KV cache, by kind. Layers with a state of fixed size are not among them,
    and a layer with an indexer is among them twice: the keys of the indexer are a kind of their own."""
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
    """Bytes of the states that linear attention and Mamba keep for one sequence, all layers
    together."""
    state_layers: int = 0
    """Number of layers that keep such a state."""
    kv_dtype: str | None = None
    """Number type of the KV cache that the checkpoint asks for, in vLLM's words, such as "fp8"."""
    quantization: str | None = None
    """vLLM's name of the method by which the weights are quantized; None if they are not."""
    quantization_detail: str = ""
    """The format or the bits of the method, such as "nvfp4-pack-quantized" or "4 bits"; "" if
    unknown."""
    tensor_bytes: tuple[int, ...] = ()
    """Bytes of each stored tensor; empty if only the shape is known."""
    padding_bytes: int = 0
    """Bytes that vLLM adds on a GPU when it loads the weights, because its kernels want larger
    tensors."""
    dense_parameters: int = 0
    """Parameters that compute every token, without the tables of tokens; 0 if the model is an ordinary
    one, whose other fields give this number."""
    expert_parameters: int = 0
    """Parameters of all experts that a router chooses from. It counts only beside
    `dense_parameters`."""
    next_token_layers: int = 0
    """Layers that the checkpoint has for the prediction of several tokens (MTP)."""
    lora: Lora | None = None
    """The adapters over the model; None without adapters."""
    gguf: GgufLayout | None = None
    """The layers of a GGUF file; None for other files."""
    draft: "Checkpoint | None" = None
    """The weights that guess tokens for this model, a small model or a head; None without any."""

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
        if self.draft is not None and not self.draft.can_split(gpus):
            return False
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
