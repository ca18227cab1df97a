"""Settings of vLLM alone: LoRA adapters over a model, and speculation."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from configs.base import Many, Strict, TemplateArguments
from configs.weights import FolderSource

MOST_ADAPTERS = 64
"""Most adapters of one model. vLLM reserves memory for each, at the largest rank of all."""
METHODS = ("ngram", "draft", "eagle", "eagle3", "mtp")
"""Ways to guess tokens that vLLM offers and a recipe may name."""
WITH_DRAFT = ("draft", "eagle", "eagle3")
"""Methods with weights of their own."""


class Adapter(Strict):
    """A LoRA adapter over a model of vLLM. It answers by its own name, as a model of the recipe does,
    and needs no engine of its own."""

    weights: Many[FolderSource] = Field(min_length=1)
    """Where the adapter's folder comes from: `adapter_config.json` and `adapter_model.safetensors`, as
    PEFT writes them. The sources are tried in order."""
    template: TemplateArguments = Field({})
    """Arguments of the chat template for the adapter; they win over those of the model."""


def _require_method(value: Any) -> Any:
    if value not in METHODS:
        message = (
            "this has to be one of: {known}; vLLM's other methods (medusa, mlp_speculator, suffix, "
            "dflash, dspark, ngram_gpu) are not offered, because nobody has tried them here"
        )
        raise PydanticCustomError("method", message, {"known": ", ".join(METHODS)})
    return value


def _to_speculation(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class VllmSpeculation(Strict):
    """Several tokens are guessed, and the model checks all of them in one step. Right guesses save
    steps, wrong guesses cost time. The model itself decides every token."""

    method: Annotated[
        Literal["ngram", "draft", "eagle", "eagle3", "mtp"],
        BeforeValidator(
            _require_method, json_schema_input_type=Literal["ngram", "draft", "eagle", "eagle3", "mtp"]
        ),
    ]
    """`ngram`: when the last tokens occurred before, in the prompt or in the answer, the tokens that
    followed there are guessed. `draft`: a small model guesses. `eagle`, `eagle3`: a head that was
    trained for the model guesses from the model's hidden states. `mtp`: the model's own layers for the
    prediction of several tokens guess, which are in the weights of some models (DeepSeek V3, GLM 4.5,
    Qwen3-Next and Qwen3.5)."""
    tokens: int = Field(3, ge=1, le=64)
    """Most tokens that are guessed at a time."""
    match_tokens: int = Field(3, ge=1, le=32)
    """With `ngram`: how many last tokens have to occur before."""
    draft: Many[FolderSource] | None = Field(None, min_length=1)
    """With `draft`, `eagle` and `eagle3`: where the folder of the small model or of the head comes
    from. A small model needs the same vocabulary."""

    @model_validator(mode="after")
    def _has_what_the_method_needs(self) -> Self:
        names = {"method": self.method}
        if self.method in WITH_DRAFT and self.draft is None:
            message = "method {method} needs draft, where the weights that guess come from"
            raise PydanticCustomError("draft", message, names)
        if self.method not in WITH_DRAFT and self.draft is not None:
            message = "draft is for draft, eagle and eagle3; method {method} has no weights of its own"
            raise PydanticCustomError("draft", message, names)
        if self.method != "ngram" and "match_tokens" in self.model_fields_set:
            message = "match_tokens is for the method ngram, and this is {method}"
            raise PydanticCustomError("draft", message, names)
        return self

    @model_serializer(mode="wrap")
    def _without_other_methods(self, to_dict: Any) -> Any:
        unused = {"draft"} if self.method not in WITH_DRAFT else set()
        unused |= {"match_tokens"} if self.method != "ngram" else set()
        return {name: value for name, value in to_dict(self).items() if name not in unused}


VllmSpeculationSetting = Annotated[
    VllmSpeculation | None,
    BeforeValidator(
        _to_speculation, json_schema_input_type=Literal["ngram", "mtp"] | VllmSpeculation | None
    ),
]
