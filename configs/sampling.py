"""How a call samples its text: what recipes and requests say, and what holds otherwise."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from configs.base import Many, Strict, TemplateArguments
from configs.extra_parameters import extra_problem

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

DEFAULTS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_tokens": 512,
}
"""What our own engines take for values that nobody has said. Temperature and tokens are MoA's; the
others change nothing. A server of `openai_http` has defaults of its own, so nothing is sent to it."""

DRAWING = tuple(name for name in DEFAULTS if name != "max_tokens")
"""The values of DEFAULTS by which tokens are drawn."""


def _read_word(value: Any) -> Any:
    return {"base": "checkpoint"} if value == "checkpoint" else value


def _require_extra(extra: dict[str, Any]) -> dict[str, Any]:
    if (problem := extra_problem(extra)) is not None:
        raise PydanticCustomError("extra", "{problem}", {"problem": problem})
    return extra


class ModelSampling(Strict):
    """How a model draws its tokens, unless a proposer, the aggregator or a request says otherwise.

    `sampling: checkpoint` is short for `sampling: {base: checkpoint}`.
    """

    base: Literal["checkpoint"] | None = None
    """What holds for values that nobody says. By default that is written beside each value.
    `checkpoint`: what the model's makers advise, in `generation_config.json` of a folder or
    `general.sampling.*` of a GGUF file. A checkpoint that advises nothing, and a model on a server, are
    sampled as without this word."""
    temperature: float | None = Field(None, ge=0, le=2)
    """With 0 the text is greedy; a higher number makes the text more varied. By default 0.7."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Nucleus sampling: draw from the likeliest tokens that together have this probability. By default
    1, which is all tokens."""
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    """Draw from this number of likeliest tokens. 0 and -1 are all tokens, which is the default."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw from tokens that have at least this share of the likeliest token's probability. By default
    0, which is all tokens."""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """A number above 1 makes tokens less likely that have occurred in the prompt or the answer. By
    default 1."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """A number above 0 makes tokens less likely that have occurred in the answer at all. By default
    0."""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """A number above 0 makes a token less likely the more often it has occurred in the answer. By
    default 0."""

    @property
    def said(self) -> dict[str, Any]:
        """The values by which tokens are drawn, as far as they are given."""
        values = {name: getattr(self, name) for name in DRAWING}
        return {name: value for name, value in values.items() if value is not None}


class Sampling(ModelSampling):
    """How one call samples its text.

    A value that is not given is unsaid. The model's own `sampling` then decides. Where that says
    nothing either, our own engines take temperature 0.7 and 512 tokens, as MoA does, and a server of
    `openai_http` is sent nothing, so that its own defaults hold.
    """

    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """Most tokens to write. A prompt has to leave this many free in the model's context. Reasoning
    counts among them, unless `thinking_tokens` is given. By default 512. A server of `openai_http` gets
    no limit by default, and a prompt leaves 512 tokens free."""
    thinking_tokens: int | None = Field(None, ge=0, le=1_000_000)
    """Most tokens of reasoning before the answer; `max_tokens` then counts the answer alone, and a
    prompt has to leave both numbers free. When they are used up, the engine ends the thought, and the
    model answers. By default reasoning has no limit of its own and may use up `max_tokens`."""
    stop: Many[Annotated[str, Field(min_length=1, max_length=256)]] = Field((), max_length=16)
    """Texts that end the answer. The answer does not contain them."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """The same seed, prompt and engine give the same text, where the engine can promise that."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Return the log-probability of each written token, and of this number of likely tokens in its
    place. By default none are returned."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model thinks, for models whose chat template knows the argument. `none` turns
    thinking off (`enable_thinking: false`), every other value turns thinking on."""
    template: TemplateArguments = Field({})
    """Arguments of the chat template for this call; they win over those of the model."""
    extra: Annotated[dict[str, Any], AfterValidator(_require_extra)] = Field({})
    """Further parameters that the model's engine knows, such as `{dry_multiplier: 0.8}` of llama.cpp or
    `{min_tokens: 8}` of vLLM, as
    [sampling.md](sampling.md#extra) lists them."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def over(self, values: Mapping[str, Any]) -> Self:
        """This sampling with other values in place of those that it does not say."""
        unsaid = {n: value for n, value in values.items() if getattr(self, n) is None}
        return self.model_copy(update=unsaid) if unsaid else self

    def filled(self) -> Self:
        """This sampling with DEFAULTS for all values that are unsaid, as our own engines need it."""
        return self.over(DEFAULTS)

    @property
    def answer_tokens(self) -> int:
        """Most tokens of the answer; the default where nobody has said a number."""
        return DEFAULTS["max_tokens"] if self.max_tokens is None else self.max_tokens

    @property
    def most_tokens(self) -> int:
        """Most tokens that a call writes: the answer and the reasoning before it.

        Where nobody has said `max_tokens`, a server of `openai_http` may write more.
        """
        return self.answer_tokens + (self.thinking_tokens or 0)

    @property
    def template_arguments(self) -> dict[str, Any]:
        """Arguments of the chat template that this sampling asks for.

        `reasoning_effort` becomes arguments as in vLLM 0.33
        (vllm/entrypoints/openai/chat_completion/protocol.py, line 665), and one more, `thinking`, which
        DeepSeek V3.1 and Granite have in place of `enable_thinking`.
        """
        effort: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            thinks = self.reasoning_effort != "none"
            effort |= {"enable_thinking": thinks, "thinking": thinks}
            if self.reasoning_effort != "none":
                effort["reasoning_effort"] = self.reasoning_effort
        return effort | self.template


AnyModelSampling = Annotated[
    ModelSampling,
    BeforeValidator(_read_word, json_schema_input_type=Literal["checkpoint"] | ModelSampling),
]
"""A model's sampling, or the word `checkpoint`."""
AnySampling = Annotated[
    Sampling, BeforeValidator(_read_word, json_schema_input_type=Literal["checkpoint"] | Sampling)
]
"""The sampling of calls, or the word `checkpoint`."""
