"""The settings of a model: a class for each engine, and the base class of all of them."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from configs.base import (
    NO_KEYS,
    REASONING_FORMATS,
    Many,
    Name,
    Seconds,
    Strict,
    TemplateArguments,
    meant,
)
from configs.llamacpp import GpuLayers, KvTypes, KvTypesSetting, SpeculationSetting, Switch
from configs.remote_call import ExtraBody, Headers, Omitted
from configs.sampling import AnyModelSampling, ModelSampling
from configs.vllm import MOST_ADAPTERS, Adapter, VllmSpeculationSetting
from configs.weights import FolderSource, WeightsSource

WORD = meant(r"^[A-Za-z_][A-Za-z0-9_]*$", "letters, digits and _, without a digit at the start")
"""Names of parameters."""
Fraction = Annotated[float, Field(ge=0, le=1)]

MOST_REPLICAS = 64
"""Most replicas of one model that a recipe may ask for; a larger number is taken for a mistake."""


class Replicas(Strict):
    """How many replicas a model gets, at least and at most. In a recipe, a whole number in place of
    `min` and `max` means exactly that many replicas."""

    min: int = Field(1, ge=1, le=MOST_REPLICAS)
    """Fewest replicas. If the cards have no room for them, the recipe does not fit."""
    max: int | None = None
    """Most replicas. By default, as many as have room on cards that would stand idle."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            ctx = {"max": self.max, "min": self.min}
            raise PydanticCustomError("order", "max ({max}) has to be at least min ({min})", ctx)
        return self

    @model_serializer
    def _to_shortest(self) -> int | dict[str, int]:
        if self.min == self.max:
            return self.min
        return {"min": self.min} if self.max is None else {"min": self.min, "max": self.max}


def _from_number(value: Any) -> Any:
    if type(value) is int:
        return {"min": value, "max": value}
    if isinstance(value, dict | Replicas):
        return value
    raise PydanticCustomError(
        "replicas", "this has to be a whole number, or a mapping with min and max"
    )


Number = Annotated[int, Field(ge=1, le=MOST_REPLICAS)]


def _require_format(value: str) -> str:
    if value not in ("auto", "none", *REASONING_FORMATS):
        known = ", ".join(["auto", "none", *REASONING_FORMATS])
        raise PydanticCustomError(
            "reasoning_format", "this has to be one of: {known}", {"known": known}
        )
    return value


ReasoningFormat = Annotated[
    str,
    AfterValidator(_require_format),
    Field(json_schema_extra={"enum": ["auto", "none", *REASONING_FORMATS]}),
]


class ModelBase(Strict):
    """The settings of every model, whichever engine runs the model."""

    context_tokens: int = Field(4096, ge=128, le=10_000_000)
    """Tokens that one sequence may hold, prompt and answer together."""
    concurrency: int = Field(4, ge=1, le=1024)
    """Sequences (calls) that one replica runs at a time. Further calls wait."""
    replicas: Annotated[
        Replicas, BeforeValidator(_from_number, json_schema_input_type=Number | Replicas)
    ] = Replicas()
    """How many replicas: `{min, max}`, or a number for exactly that many. By default one replica, and
    more on cards that would stand idle."""
    sampling: AnyModelSampling = ModelSampling()
    """How the model draws tokens where neither proposer, aggregator nor request says it; `checkpoint`
    takes what the model's makers advise."""
    residency: Literal["auto", "resident", "turns"] = "auto"
    """`resident`: the model is always awake, alone in its slot. `turns`: the model shares a slot with
    other models, and they are awake in turns. `auto`: the planner decides."""


class ChatModel(ModelBase):
    """The settings of every model that has a chat template."""

    template: TemplateArguments = Field({})
    """Arguments of the model's chat template, such as `{enable_thinking: false}`. They count for
    prompts and for the counting of tokens. Which arguments there are depends on the model:
    `enable_thinking` (Qwen3, GLM, Gemma 4, SmolLM3, Nemotron), `thinking` (DeepSeek V3.1, Granite),
    `reasoning_effort` (gpt-oss)."""
    reasoning_format: ReasoningFormat = "auto"
    """How the model marks its reasoning, so that it is told from the answer. `auto`: the chat template
    shows it, and a server of `openai_http` may use the marks of any family. `none`: all that the model
    writes is the answer. The names are in [thinking.md](thinking.md#reasoning)."""


class LlamaCppModel(ChatModel):
    """A model in a GGUF file. llama.cpp runs the model inside the replica's process."""

    engine: Literal["llamacpp"]
    """llama.cpp through xllamacpp."""
    weights: Many[WeightsSource] = Field(min_length=1)
    """Where the GGUF file comes from. The sources are tried in order."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; by default the model's share of the cores."""
    prefill_tokens: int = Field(32, ge=8, le=4096)
    """Prompt tokens per prefill step. A cancelled call ends after at most two steps, so a slow CPU
    needs a small number. A larger number is faster: 512 was measured 1.26 times as fast as 32."""
    gpu_layers: GpuLayers = "auto"
    """How many layers go to the GPU, from the last one on; the output layer counts as the very last.
    The others stay in RAM with their part of the KV cache, and run on the CPU. `all`: every layer.
    `auto`: every layer if this build of llama.cpp can use the GPU, else none. Without a GPU this has no
    effect."""
    kv_cache_type: KvTypesSetting = KvTypes()
    """Number type of the KV cache, or `{k, v}` for keys and values."""
    flash_attention: Switch = "auto"
    """Whether attention is computed without storing its matrix. `auto`: where the device can."""
    speculation: SpeculationSetting = None
    """Guess several tokens at a time; by default none. `ngram` means `{method: ngram}`."""

    @property
    def draft_model(self) -> "LlamaCppModel | None":
        """The small model of a speculation, as llama.cpp runs it beside this one; None without one."""
        if self.speculation is None or self.speculation.draft is None:
            return None
        changes = {"weights": self.speculation.draft, "speculation": None, "kv_cache_type": KvTypes()}
        return self.model_copy(update=changes)


class OpenAIHttpModel(ChatModel):
    """A model on an OpenAI-compatible server."""

    engine: Literal["openai_http"]
    """OpenAI's API over HTTP, with streaming."""
    base_url: str = Field(
        pattern=meant(
            r"^https?://[^\s?#]+$",
            "the root of an API with its scheme, such as http://127.0.0.1:8000/v1, and without ? and #",
        )
    )
    """The server's API root, usually ending in /v1."""
    model: str = Field(min_length=1)
    """The model's name on that server."""
    api_key_env: str | None = Field(
        None,
        pattern=meant(
            r"^[A-Za-z_][0-9A-Za-z_]*$",
            "the name of an environment variable that holds the key, such as MY_API_KEY, without $",
        ),
    )
    """Environment variable that holds the API key. A recipe never contains keys."""
    output_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The request parameter by which that server limits the tokens of an answer."""
    thinking_limit: str | None = Field(None, pattern=WORD)
    """The request parameter by which that server limits the tokens of reasoning
    (`thinking_token_budget` of vLLM, `thinking_budget_tokens` of llama.cpp). Without the name,
    `sampling.thinking_tokens` only makes room beside the answer, and the server may think longer."""
    extra_body: ExtraBody = Field({})
    """Further fields of each request's body, such as `{provider: {order: [Groq]}}`, for what only this
    server knows. They may not be fields that other settings give."""
    headers: Headers = Field({})
    """Further headers of each request. `${NAME}` in a value stands for an environment variable, such as
    `{api-key: "${AZURE_KEY}"}`; a recipe never contains keys."""
    omit: Omitted = Field(())
    """Fields that are left out of each request's body because the server refuses them, such as
    `[temperature]`. Without `max_tokens`, nothing limits the tokens of an answer."""
    control_tokens: Many[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        None, max_length=4096
    )
    """Texts that the server's model reads as control tokens. They are made harmless in messages. By
    default the known ones of all families; an empty list leaves all texts as they are."""
    characters_per_token: float = Field(3.0, gt=0, le=20)
    """Characters per token. They give an estimate of a text's tokens, because the server's tokenizer is
    unknown. A lower number is safer."""
    connect_timeout_s: Seconds = 10
    """Longest wait for a connection."""
    read_timeout_s: Seconds = 120
    """Longest silence of the server, before the first token or between tokens."""
    retries: int = Field(2, ge=0, le=10)
    """Further attempts after a failed connection or a status 408, 409, 425, 429 or 5xx, also if the
    status is 200 and the body says such an error. After the first token there are none."""
    backoff_s: Seconds = 0.5
    """Wait before the first retry. The wait doubles each time, with jitter. Retry-After is honoured, up
    to 30 s."""

    @field_validator("base_url")
    @classmethod
    def _holds_no_key(cls, url: str) -> str:
        if re.match(r"https?://[^/]*@", url):
            raise PydanticCustomError("secret", NO_KEYS)
        return url

    @model_validator(mode="after")
    def _sends_one_key(self) -> Self:
        if self.api_key_env and any(name.lower() == "authorization" for name in self.headers):
            message = "api_key_env gives the header Authorization already; leave one of the two out"
            raise PydanticCustomError("two_keys", message)
        return self


class ScriptedModel(ModelBase):
    """A deterministic engine without weights, for demonstrations and for tests of load and faults."""

    engine: Literal["scripted"]
    """Text from a seeded script."""
    text: str | None = None
    """The text of every answer. By default the answer is words drawn from model, seed and prompt."""
    tokens: int = Field(24, ge=0, le=1_000_000)
    """Number of words of a drawn answer. With 0 the answer is empty."""
    start_s: float = Field(0, ge=0, le=86_400)
    """Time that the engine takes to start."""
    first_token_s: float = Field(0.05, ge=0, le=86_400)
    """Time from the start of a call to its first token."""
    token_s: float = Field(0.002, ge=0, le=86_400)
    """Time between tokens."""
    fail_share: Fraction = 0
    """Share of calls that fail before their first token, from 0 to 1. The call's number decides."""
    hang_share: Fraction = 0
    """Share of calls that never write anything, from 0 to 1. The call's number decides."""
    weight_bytes: int | None = Field(None, ge=1, le=1 << 50)
    """Bytes that the model pretends to need of a card, so that it is planned like any model. By default
    none: the model takes no card."""
    journal: str | None = Field(None, pattern=meant(r"\.jsonl$", "a path that ends in .jsonl"))
    """A file (.jsonl) to which each call writes a line when it starts: the model, the messages, the
    sampling and the process ID."""


class VllmModel(ChatModel):
    """A model in a folder of safetensors. vLLM runs the model on GPUs, or on a CPU with a CPU build."""

    engine: Literal["vllm"]
    """vLLM's AsyncLLM."""
    weights: Many[FolderSource] = Field(min_length=1)
    """Where the folder comes from. The sources are tried in order."""
    quantization: str | None = None
    """Name of a quantization that vLLM applies while it loads the weights. By default, the quantization
    that the checkpoint names."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number type of weights and activations that are not quantized."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """Number type of the KV cache. `fp8` takes half the bytes of a 16-bit type."""
    kv_tokens: int | None = Field(None, ge=128, le=1_000_000_000)
    """Tokens that the KV cache holds for all sequences together, at least one whole context. By default
    the whole context of every sequence. If few conversations are long, fewer tokens are enough, because
    vLLM lets a sequence wait for room."""
    batch_tokens: int = Field(2048, ge=32, le=1_000_000)
    """Most tokens that one step processes, prefill and decode together."""
    eager: bool = False
    """Skip compilation and CUDA graphs: the model starts faster and decodes slower."""
    load_format: Literal["auto", "dummy"] = "auto"
    """`dummy` makes random weights in the real shape, to measure memory and speed without files."""
    trust_remote_code: bool = False
    """Run the Python code in the checkpoint's folder. Turn this on only if you have read that code."""
    speculation: VllmSpeculationSetting = None
    """Guess several tokens at a time; by default none. `ngram` means `{method: ngram}`."""
    adapters: dict[Name, Adapter] = Field({}, max_length=MOST_ADAPTERS)
    """LoRA adapters over this model, by name. Each name can propose, aggregate and be asked as a model.
    One engine holds the weights once and answers for all of them."""

    @property
    def draft_model(self) -> "VllmModel | None":
        """The settings of the weights that guess tokens, as those of a model; None if there are
        none."""
        if self.speculation is None or self.speculation.draft is None:
            return None
        changes: dict[str, Any] = {"speculation": None, "adapters": {}, "quantization": None}
        return self.model_copy(update={**changes, "weights": self.speculation.draft})

    def as_adapter(self, name: str) -> "VllmModel":
        """The settings of one of the adapters, as those of a model without adapters."""
        template = {**self.template, **self.adapters[name].template}
        return self.model_copy(update={"template": template, "adapters": {}})


Model = Annotated[
    LlamaCppModel | OpenAIHttpModel | ScriptedModel | VllmModel, Field(discriminator="engine")
]
