"""Parameters of calls that only some engines know, under the names of vLLM and llama.cpp.

Sources: vllm/sampling_params.py of vLLM 0.33; tools/server/server-task.cpp of llama.cpp.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from configs.base import Strict
from configs.sentences import first_problem
from configs.tool_use import ToolUse

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1024)]
Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=64)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0, le=100)]
Window = Annotated[int, Field(ge=-1, le=10_000_000)]


def _require_tokens(bias: dict[str, float]) -> dict[str, float]:
    if len(bias) > 1024 or not all(re.fullmatch(r"\d{1,7}", token) for token in bias):
        raise PydanticCustomError(
            "logit_bias", "this has to map at most 1024 token ids to numbers from -100 to 100"
        )
    return bias


LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]], AfterValidator(_require_tokens)
]


KINDS = ("json_object", "json_schema", "regex", "choice", "grammar")
"""The kinds of forms: fields of `Structure`, of which exactly one is given."""


class Structure(Strict):
    """The form that an answer has to have: exactly one of KINDS."""

    json_object: Literal[True] | None = None
    """Any JSON object."""
    json_schema: dict[str, Any] | None = None
    """JSON that fits this JSON schema."""
    regex: Annotated[str, Field(min_length=1, max_length=65_536)] | None = None
    """A text that this regular expression matches."""
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    """One of these texts."""
    grammar: Annotated[str, Field(min_length=1, max_length=262_144)] | None = None
    """A text of this grammar, in the engine's own notation: GBNF for llama.cpp and vLLM."""
    strict: bool | None = None
    """Whether the answer has to fit all of the JSON schema, as OpenAI's `strict` says it. With false,
    parts that an engine cannot hold are left out."""

    @property
    def kind(self) -> str:
        """The field that is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            ctx = {"given": ", ".join(given) or "none"}
            raise PydanticCustomError("one_form", "one form has to be given, not {given}", ctx)
        return self


class ExtraParameters(Strict):
    """Parameters of calls that only some engines know."""

    min_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Fewest tokens of the answer."""
    ignore_eos: bool | None = None
    """Go on where the model would end, up to `max_tokens`; for measurements."""
    typical_p: Share | None = None
    """Locally typical sampling; 1 is off."""
    top_n_sigma: Annotated[float, Field(ge=-1, le=100)] | None = None
    """Draw from tokens within this number of standard deviations of the best logit; -1 is off."""
    min_keep: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Fewest tokens that the samplers leave to draw from."""
    xtc_probability: Share | None = None
    """How often the likeliest tokens are left out (XTC); 0 is off."""
    xtc_threshold: Share | None = None
    """Probability from which XTC leaves tokens out."""
    dynatemp_range: Positive | None = None
    """Range of a temperature that follows the entropy; 0 is off."""
    dynatemp_exponent: Positive | None = None
    """Exponent of that temperature."""
    repeat_last_n: Window | None = None
    """How many of the latest tokens the penalties look at. 0 means none, and -1 the whole context."""
    dry_multiplier: Positive | None = None
    """Strength of the penalty for repeated sequences (DRY); 0 is off."""
    dry_base: Positive | None = None
    """Base of DRY's penalty."""
    dry_allowed_length: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Tokens that may repeat without DRY's penalty."""
    dry_penalty_last_n: Window | None = None
    """Latest tokens that DRY looks at; 0 is none, -1 the whole context."""
    dry_sequence_breakers: Annotated[Texts, Field(min_length=1)] | None = None
    """Texts at which a repeated sequence ends for DRY."""
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    """Version of Mirostat, which keeps the surprise constant; 0 is off."""
    mirostat_tau: Positive | None = None
    """Surprise that Mirostat aims at."""
    mirostat_eta: Positive | None = None
    """How fast Mirostat learns."""
    include_stop_str_in_output: bool | None = None
    """Whether the answer contains the text that ended it."""
    logit_bias: LogitBias | None = None
    """What to add to the logits of tokens, by token id of the model that answers."""
    stop_token_ids: Tokens | None = None
    """Tokens that end the answer."""
    allowed_token_ids: Annotated[Tokens, Field(min_length=1)] | None = None
    """The only tokens to draw from."""
    bad_words: Texts | None = None
    """Texts that the answer must not have."""
    structure: Structure | None = None
    """The form that the answer has to have."""
    tool_use: ToolUse | None = None
    """The tools that the answer may call, or has to call."""


SHAPES = (
    "typical_p",
    "top_n_sigma",
    "min_keep",
    "xtc_probability",
    "xtc_threshold",
    "dynatemp_range",
    "dynatemp_exponent",
    "repeat_last_n",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)
"""Parameters of llama.cpp that change which tokens are likely."""
CONSTRAINTS = (
    "logit_bias",
    "stop_token_ids",
    "allowed_token_ids",
    "bad_words",
    "structure",
    "tool_use",
)
"""Parameters without which an answer would be another one than was asked for."""
KNOWN: dict[str, frozenset[str]] = {
    "llamacpp": frozenset({*SHAPES, "ignore_eos", "logit_bias", "structure", "tool_use"}),
    "vllm": frozenset(
        {
            "min_tokens",
            "ignore_eos",
            "include_stop_str_in_output",
            *CONSTRAINTS,
        }
    ),
    "openai_http": frozenset(ExtraParameters.model_fields),
    "scripted": frozenset(),
}
"""The parameters that each engine takes. A server of `openai_http` is sent all of them."""
STRUCTURES: dict[str, frozenset[str]] = {
    "llamacpp": frozenset({"json_object", "json_schema", "choice", "grammar"}),
    "vllm": frozenset(KINDS),
    "openai_http": frozenset({"json_object", "json_schema"}),
    "scripted": frozenset(),
}
"""The forms of answers that each engine can hold a model to."""


CALLS_IN_TEXT = frozenset({"llamacpp", "vllm"})
"""Engines whose models call tools in the text that they write. The mixture puts the tools into the
prompt and reads the calls; the engine holds the calls to their form. Other engines that take `tool_use`
tell calls apart themselves."""
SENT_AS = {"structure": "response_format", "tool_use": "tools"}
"""OpenAI's names of constraints."""


def tools_in_text(extra: dict[str, Any], engine: str) -> ToolUse | None:
    """The tools that a prompt for the engine has to tell of; None if there are none."""
    given = extra.get("tool_use")
    return ToolUse.model_validate(given) if given and engine in CALLS_IN_TEXT else None


def can_honour(engine: str, name: str, value: Any) -> bool:
    """Whether an engine takes a parameter with this value."""
    if name == "structure":
        return Structure.model_validate(value).kind in STRUCTURES[engine]
    return name in KNOWN[engine]


def extra_problem(extra: dict[str, Any]) -> str | None:
    """What is wrong with extra parameters, whichever engine gets them; None if nothing is."""

    try:
        ExtraParameters.model_validate(extra)
    except ValidationError as error:
        return first_problem(error, ExtraParameters)
    return None
