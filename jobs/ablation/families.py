"""Tells from the names of weights which family of base models a model comes from."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from configs.schema import LlamaCppModel, Model, OpenAIHttpModel, VllmModel

FAMILY = re.compile(
    "command-r|deepseek|falcon|gemma|granite|internlm|llama|mi[sx]tral|olmo|qwen|smollm"
    "|(?<![a-z])(?:phi|yi)(?![a-z])"
)
"""Families whose quantizations and finetunes keep the family's name."""

Source = Literal["same", "different"]
"""Whether a model shares a family with others."""


def source(model: Model, others: Iterable[Model]) -> Source | None:
    """Whether a model shares a family with one of the others; None if the names do not tell."""
    own, theirs = families(model), [families(other) for other in others]
    if any(own & each for each in theirs):
        return "same"
    return "different" if own and all(theirs) else None


def families(model: Model) -> frozenset[str]:
    """The families in the names of a model's weights; an empty set if the names contain none.

    A name may contain several families: DeepSeek-R1-Distill-Llama-70B belongs to both.
    """
    found = FAMILY.findall(" ".join(_names(model)).lower())
    return frozenset("mistral" if name == "mixtral" else name for name in found)


def _names(model: Model) -> Iterator[str]:
    """Yield the names of a model's weights, without owners and folders, which may have any name."""
    if isinstance(model, OpenAIHttpModel):
        yield model.model
    if isinstance(model, LlamaCppModel | VllmModel):
        for weights in model.weights:
            parts = getattr(weights, "wheels", (weights,))
            paths = (getattr(part, key, "") for part in parts for key in ("hub", "path", "file"))
            yield from (path.rpartition("/")[2] for path in paths)
