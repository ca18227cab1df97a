"""The recipe: every setting of SlimMoA as frozen, strict models.

This is the only place of defaults in the project. Units stand in the names: `_s` seconds,
`_bytes`, `_tokens`. A recipe says what should be; it knows nothing of Ray, HTTP or engines.
"""

import json
import re
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from configs.access import Access
from configs.base import Many, Name, Seconds, Strict
from configs.cross_checks import inconsistencies
from configs.weights import FolderSource, WeightsSource

Share = Annotated[float, Field(ge=0, le=1)]

NO_KEYS = (
    "API keys never stand in a recipe: put the key into an environment variable and name that "
    "variable in api_key_env"
)


def default_prompt() -> str:
    """The aggregation prompt that the package ships: MoA's instructions in our own words."""
    return resources.files("configs").joinpath("aggregate.txt").read_text("utf-8")


class Sampling(Strict):
    """How one call samples its text. Defaults are MoA's (temperature 0.7, 512 tokens)."""

    temperature: float = Field(0.7, ge=0, le=2)
    """0 is greedy; higher is more varied."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus: sample from the likeliest tokens that hold this much probability."""
    max_tokens: int = Field(512, ge=1, le=1_000_000)
    """Most tokens to write; also what a prompt must leave free in the model's context."""
    stop: Many[Annotated[str, Field(min_length=1, max_length=256)]] = Field((), max_length=16)
    """Texts that end the answer; they are not part of it."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Same seed, same prompt, same engine: same text where the engine can promise it."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0: discourage tokens that occurred at all."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Above 0: discourage tokens by how often they occurred."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Log-probabilities to return: none, or of the written token and this many others."""


MOST_REPLICAS = 64


class Replicas(Strict):
    """How many replicas of a model there are. A number alone means exactly so many."""

    min: int = Field(1, ge=1, le=MOST_REPLICAS)
    """Fewest; it does not fit where there is no room for them."""
    max: int | None = None
    """Most; by default as many as find room on cards that would stand idle."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            ctx = {"max": self.max, "min": self.min}
            raise PydanticCustomError("order", "max ({max}) has to be at least min ({min})", ctx)
        return self

    @model_serializer
    def _written(self) -> int | dict[str, int]:
        if self.min == self.max:
            return self.min
        return {"min": self.min} if self.max is None else {"min": self.min, "max": self.max}


def _exactly(value: Any) -> Any:
    if type(value) is int:
        return {"min": value, "max": value}
    if isinstance(value, dict | Replicas):
        return value
    raise PydanticCustomError(
        "replicas", "this has to be a whole number, or a mapping with min and max"
    )


Number = Annotated[int, Field(ge=1, le=MOST_REPLICAS)]


class ModelBase(Strict):
    """What every model has, whichever engine runs it."""

    context_tokens: int = Field(4096, ge=128, le=10_000_000)
    """Tokens that one sequence may hold, prompt and answer together."""
    concurrency: int = Field(4, ge=1, le=1024)
    """Sequences that one replica runs at a time; further ones wait."""
    replicas: Annotated[
        Replicas, BeforeValidator(_exactly, json_schema_input_type=Number | Replicas)
    ] = Replicas()
    """`{min, max}`, or a number for exactly so many. By default one, and more on cards that would
    stand idle."""
    residency: Literal["auto", "resident", "turns"] = "auto"
    """`resident`: always awake, in a slot of its own; `turns`: shares a slot; by default as planned."""


class LlamaCppModel(ModelBase):
    """A GGUF file, run inside the replica by llama.cpp."""

    engine: Literal["llamacpp"]
    """llama.cpp through xllamacpp."""
    weights: Many[WeightsSource] = Field(min_length=1)
    """Where the GGUF file comes from; tried in order."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; by default the model's share of the cores."""
    prefill_tokens: int = Field(32, ge=8, le=4096)
    """Prompt tokens per prefill step. A cancelled call ends after at most two steps, so a
    slow CPU wants it small; larger is faster: 512 against 32 is 1.26 times, measured."""


class OpenAIHttpModel(ModelBase):
    """A model behind any OpenAI-compatible server."""

    engine: Literal["openai_http"]
    """HTTP with streaming."""
    base_url: str = Field(pattern=r"^https?://[^\s?#]+$")
    """The server's API root, usually ending in /v1."""
    model: str = Field(min_length=1)
    """The model's name on that server."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the API key. Keys never stand in a recipe."""
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The name under which that server takes the output limit."""
    characters_per_token: float = Field(3.0, gt=0, le=20)
    """The remote tokenizer is unknown, so tokens are estimated from characters. Lower is safer."""
    connect_timeout_s: Seconds = 10
    """Longest wait for a connection."""
    read_timeout_s: Seconds = 120
    """Longest silence of the server before or between tokens."""
    retries: int = Field(2, ge=0, le=10)
    """Further attempts after a failed connection or a 408, 429 or 5xx, before the first token only."""
    backoff_s: Seconds = 0.5
    """Wait before the first retry; doubles each time, with jitter. Retry-After is honoured."""

    @field_validator("base_url")
    @classmethod
    def _holds_no_key(cls, url: str) -> str:
        if re.match(r"https?://[^/]*@", url):
            raise PydanticCustomError("secret", NO_KEYS)
        return url


class ScriptedModel(ModelBase):
    """A deterministic engine without weights, for demonstrations, load and fault tests."""

    engine: Literal["scripted"]
    """Text from a seeded script."""
    text: str | None = None
    """The answer; by default words drawn from model, seed and prompt."""
    tokens: int = Field(24, ge=0, le=1_000_000)
    """Words of a drawn answer; 0 is an empty answer."""
    start_s: float = Field(0, ge=0, le=86_400)
    """Time to start."""
    first_token_s: float = Field(0.05, ge=0, le=86_400)
    """Time to the first token."""
    token_s: float = Field(0.002, ge=0, le=86_400)
    """Time between tokens."""
    fail_share: Share = 0
    """Share of calls that fail before their first token, drawn by call number."""
    hang_share: Share = 0
    """Share of calls that never write anything, drawn by call number."""
    weight_bytes: int | None = Field(None, ge=1, le=1 << 50)
    """Bytes that it is said to take of a card, where it then takes turns; by default it takes none."""
    journal: str | None = Field(None, pattern=r"\.jsonl$")
    """A file (.jsonl) that gets a line for each call that starts: model, messages, sampling, pid."""


class VllmModel(ModelBase):
    """A folder of safetensors, run by vLLM in the replica: on a GPU, or on a CPU build of vLLM."""

    engine: Literal["vllm"]
    """vLLM's AsyncLLM."""
    weights: Many[FolderSource] = Field(min_length=1)
    """Where the folder comes from; tried in order."""
    quantization: str | None = None
    """vLLM's online quantization by name; by default what the checkpoint says of itself."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number type of what is not quantized."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """Number type of the KV cache; fp8 halves it."""
    kv_tokens: int | None = Field(None, ge=128, le=1_000_000_000)
    """Tokens that the KV cache holds over all sequences, at least one whole context; by default the
    whole context of every sequence. Fewer do where few are long: vLLM lets the others wait."""
    batch_tokens: int = Field(2048, ge=32, le=1_000_000)
    """Most tokens that one step processes, prefill and decode together."""
    eager: bool = False
    """Skip compilation and CUDA graphs: starts faster, decodes slower."""
    load_format: Literal["auto", "dummy"] = "auto"
    """`dummy` gives random weights in the real shape, to measure memory and speed without files."""
    reasoning_parser: str | None = None
    """vLLM's parser that separates reasoning from the answer, by name (`qwen3`, `deepseek_r1`)."""
    trust_remote_code: bool = False
    """Run Python code that the checkpoint brings. Off, unless you have read that code."""


Model = Annotated[
    LlamaCppModel | OpenAIHttpModel | ScriptedModel | VllmModel, Field(discriminator="engine")
]


class Proposer(Strict):
    """One place in a layer."""

    model: Name
    """A model of this recipe; it may stand in several places."""
    samples: int = Field(1, ge=1, le=32)
    """Answers that it contributes, each with a seed of its own (Self-MoA)."""
    sampling: Sampling = Sampling()
    """How it samples."""


class Layer(Strict):
    """Proposers that answer side by side; from the second layer on they see the last proposals."""

    proposers: Many[Proposer] = Field(min_length=1)
    """The proposers, the most trusted first: if every aggregator fails, the first one that
    answered is the answer."""


class Aggregator(Strict):
    """Who reads the last layer's proposals and writes the answer."""

    model: Name
    """A model of this recipe."""
    sampling: Sampling = Sampling()
    """How it samples, where the request does not say."""
    fallbacks: Many[Name] = ()
    """Models that take over, in order, if it fails before its first token."""
    first_token_timeout_s: Seconds | None = None
    """Longest wait for its first token before the next takes over; by default the deadline."""


class References(Strict):
    """How proposals enter a prompt."""

    style: Literal["system", "tail"] = "system"
    """`system` appends to the system message (MoA's way); `tail` to the last user message, which
    keeps the prefix cache over the turns of a conversation."""
    prompt: str = Field(default_factory=default_prompt, min_length=1)
    """Instructions before the references."""
    prompt_file: str | None = None
    """File with the instructions, in the recipe's folder or below; takes the place of `prompt`."""
    item: str = "<response {number}>\n{text}\n</response {number}>"
    """Form of one reference; has {text} and may have {number}. MoA's paper has `{number}. {text}`."""


class Limits(Strict):
    """When to go on, when to give up, how much to take in."""

    deadline_s: Seconds = 300
    """Longest time of one answer, all layers and the aggregator."""
    layer_deadline_s: Seconds = 120
    """Longest time of one layer; late proposers are dropped."""
    quorum: int = Field(1, ge=1, le=1024)
    """Fewest proposals of a layer to go on with."""
    grace_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """Time for the rest once the quorum is there; by default until the layer's deadline."""
    queue: int | None = Field(None, ge=0, le=100_000)
    """Calls that may wait at one replica beyond its concurrency; what comes then is refused (429). By
    default so many that waiting about doubles the time of an answer: the concurrency, times one less
    than twice the stages (the layers, and the aggregator)."""
    keepalive_s: Seconds = 5
    """A silent stream gets a comment this often, so that proxies and clients keep it open."""
    max_body_bytes: int = Field(1_048_576, ge=1024, le=1_073_741_824)
    """Largest request body; a larger one is refused (413)."""
    read_timeout_s: Seconds = 30
    """Longest time for a request body to come in; a slower one is refused (408)."""
    write_timeout_s: Seconds = 60
    """Longest time that a stream waits for a client that reads nothing; then its calls end."""


class Cards(Strict):
    """The cards that models are placed on, and how they are shared."""

    names: Many[Name] = ()
    """Cards by name (`A100-80GB`), to plan for another machine; by default those that are here."""
    memory_bytes: int | None = Field(None, ge=1)
    """Most bytes to use of each GPU, or of the RAM; by default all but a reserve."""
    host_memory_bytes: int | None = Field(None, ge=1)
    """Most bytes of host RAM for the weights of sleeping models; by default most of what is there."""
    tensor_parallel: Literal[1, 2, 4, 8] | None = None
    """Over how many GPUs of a node each model of vLLM is split; by default as few as it takes. They
    then count as one card, with slots of its own."""
    patience_s: Seconds = 30
    """A call that waits longer than this for its model ends the turn of the awake one."""


class Recipe(Strict):
    """One mixture: its models, layers, aggregator and limits."""

    name: Name
    """The mixture's model name in the API."""
    description: str = ""
    """One line for people."""
    models: dict[Name, Model] = Field(min_length=1)
    """The models by name; each can also be asked directly under it."""
    layers: Many[Layer] = Field(min_length=1)
    """The layers in order."""
    aggregator: Aggregator
    """Who writes the answer."""
    references: References = Field(default_factory=References)
    """How the proposals of one layer enter the prompts of the next."""
    cards: Cards = Cards()
    """The cards, and how models share them."""
    limits: Limits = Limits()
    """Deadlines, quorum and sizes."""
    access: Access = Access()
    """Who may come in, and how much each may ask for."""

    def queue_of(self, model: str) -> int:
        """How many calls may wait at one replica of a model.

        An answer in work is in one stage at a time, so stages * concurrency answers keep all stages
        busy, and as many again wait (Little's law: twice as many in work take twice as long).
        """
        if self.limits.queue is not None:
            return self.limits.queue
        return (2 * (len(self.layers) + 1) - 1) * self.models[model].concurrency

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        problems = inconsistencies(self.model_dump())
        if problems:
            text = "; ".join(f"{'.'.join(map(str, p.where))}: {p.message}" for p in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self


def json_schema() -> dict[str, Any]:
    """The recipe's JSON schema, as committed in `configs/schema.json`."""
    return Recipe.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
