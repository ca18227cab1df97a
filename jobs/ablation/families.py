"""Tells from the names of weights which family of base models a model comes from."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from configs.schema import LlamaCppModel, Model, OpenAIHttpModel, VllmModel

FAMILY = re.compile(
    "command-r|deepseek|falcon|gemma|granite|internlm|llama|mi[sx]tral|olmo|qwen|smollm"
    "|(?<![a-z])(?:phi|yi)(?![a-z])"
)
"""Finds the name of a family in lower case: quantizations and finetunes of these families keep it."""

Source = Literal["same", "different"]
"""Whether a model shares a family with others."""


def source(model: Model, others: Iterable[Model]) -> Source | None:
    """Whether a model shares a family with one of the others; None if the names do not tell.

    The names do not tell if no family is shared and a name contains no known family.
    """
    own, theirs = families(model), [families(other) for other in others]
    if any(own & each for each in theirs):
        return "same"
    return "different" if own and all(theirs) else None


def families(model: Model) -> frozenset[str]:
    """The families in the names of a model's weights; an empty set if the names contain none.

    A name may contain several families: DeepSeek-R1-Distill-Llama-70B belongs to deepseek and llama.
    Mixtral counts as mistral.
    """
    found = FAMILY.findall(" ".join(_names(model)).lower())
    return frozenset("mistral" if name == "mixtral" else name for name in found)


def _names(model: Model) -> Iterator[str]:
    """Yield the names of a model's weights.

    Owners and folders may have any name and are left out, except in the name of a model on a server.
    """
    if isinstance(model, OpenAIHttpModel):
        yield model.model
    if isinstance(model, LlamaCppModel | VllmModel):
        for weights in model.weights:
            parts = getattr(weights, "wheels", (weights,))
            paths = (getattr(part, key, "") for part in parts for key in ("hub", "path", "file"))
            yield from (path.rpartition("/")[2] for path in paths)
