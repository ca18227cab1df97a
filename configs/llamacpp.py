"""Settings of llama.cpp alone: number types of the KV cache, layers on a GPU, speculation."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from configs.base import Many, Strict
from configs.weights import WeightsSource

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""Number types of llama.cpp's KV cache (`kv_cache_types` in its common/arg.cpp)."""
KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


class KvTypes(Strict):
    """Number types of a KV cache. In a recipe, a name in place of `k` and `v` means both."""

    k: KvType = "f16"
    """Type of the keys. `q8_0` takes 0.53 of the bytes of `f16`, `q4_0` 0.28."""
    v: KvType = "f16"
    """Type of the values. A quantized type needs flash attention."""

    @model_serializer
    def _to_shortest(self) -> str | dict[str, str]:
        return self.k if self.k == self.v else {"k": self.k, "v": self.v}


def _to_kv_types(value: Any) -> Any:
    if value in KV_TYPES:
        return {"k": value, "v": value}
    if isinstance(value, dict | KvTypes):
        return value
    message = "this has to be one of {known}, or a mapping with k and v"
    raise PydanticCustomError("kv_types", message, {"known": ", ".join(KV_TYPES)})


KvTypesSetting = Annotated[
    KvTypes, BeforeValidator(_to_kv_types, json_schema_input_type=KvType | KvTypes)
]


def _to_gpu_layers(value: Any) -> Any:
    if value in ("auto", "all") or (type(value) is int and 0 <= value <= MOST_LAYERS):
        return value
    message = "this has to be auto, all, or a whole number of layers from 0 to {most}"
    raise PydanticCustomError("gpu_layers", message, {"most": MOST_LAYERS})


def _to_switch(value: Any) -> Any:
    """YAML reads `on` and `off` as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


MOST_LAYERS = 1000
"""Most layers of `gpu_layers`."""
Layers = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
GpuLayers = Annotated[
    int | str,
    PlainValidator(_to_gpu_layers, json_schema_input_type=Literal["auto", "all"] | Layers),
]
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(_to_switch, json_schema_input_type=Literal["auto", "on", "off"]),
]


def _require_method(value: Any) -> Any:
    if value not in ("ngram", "draft"):
        message = (
            "this has to be ngram or draft; the other methods of llama.cpp (eagle3, mtp, dflash, "
            "dspark) are not offered, because nobody has tried them here"
        )
        raise PydanticCustomError("method", message)
    return value


def _to_speculation(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class Speculation(Strict):
    """Several tokens are guessed, and the model checks all of them in one step. Right guesses save
    steps, wrong guesses cost time. The model itself decides every token."""

    method: Annotated[
        Literal["ngram", "draft"],
        BeforeValidator(_require_method, json_schema_input_type=Literal["ngram", "draft"]),
    ]
    """`ngram`: when the last tokens occurred before, in the prompt or in the answer, the tokens that
    followed there are guessed. `draft`: a small model guesses."""
    tokens: int = Field(8, ge=1, le=64)
    """Most tokens that are guessed at a time."""
    match_tokens: int = Field(3, ge=1, le=32)
    """With `ngram`: how many last tokens have to occur before."""
    draft: Many[WeightsSource] | None = Field(None, min_length=1)
    """With `draft`: where the GGUF file of the small model comes from. It needs the same vocabulary."""

    @model_validator(mode="after")
    def _has_what_the_method_needs(self) -> Self:
        if self.method == "draft" and self.draft is None:
            raise PydanticCustomError("draft", "method draft needs draft, the weights of a small model")
        if self.method == "ngram" and self.draft is not None:
            raise PydanticCustomError("draft", "draft is for the method draft, and this is ngram")
        if self.method == "draft" and "match_tokens" in self.model_fields_set:
            raise PydanticCustomError(
                "draft", "match_tokens is for the method ngram, and this is draft"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_other_methods(self, to_dict: Any) -> Any:
        unused = "match_tokens" if self.method == "draft" else "draft"
        return {name: value for name, value in to_dict(self).items() if name != unused}


SpeculationSetting = Annotated[
    Speculation | None,
    BeforeValidator(_to_speculation, json_schema_input_type=Literal["ngram"] | Speculation | None),
]
