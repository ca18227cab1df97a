"""From which base models a recipe's models come, as far as the names of their weights tell."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from configs.schema import LlamaCppModel, Model, OpenAIHttpModel, VllmModel

# Families whose name their weights and finetunes keep. Who quantized or finetuned them is no matter.
FAMILY = re.compile(
    "command-r|deepseek|falcon|gemma|granite|internlm|llama|mi[sx]tral|olmo|qwen|smollm"
    "|(?<![a-z])(?:phi|yi)(?![a-z])"
)

Source = Literal["same", "different"]


def source(model: Model, others: Iterable[Model]) -> Source | None:
    """Whether a model is of a family that is among others, or None if the names do not tell."""
    own, theirs = families(model), [families(other) for other in others]
    if any(own & each for each in theirs):
        return "same"
    return "different" if own and all(theirs) else None


def families(model: Model) -> frozenset[str]:
    """The families that the model's weights are named after; none if their names do not tell.

    A name may tell several: DeepSeek-R1-Distill-Llama-70B is of both.
    """
    found = FAMILY.findall(" ".join(_names(model)).lower())
    return frozenset("mistral" if name == "mixtral" else name for name in found)


def _names(model: Model) -> Iterator[str]:
    """Names of weights, without owners and folders: who has them is not what they are."""
    if isinstance(model, OpenAIHttpModel):
        yield model.model
    if isinstance(model, LlamaCppModel | VllmModel):
        for weights in model.weights:
            parts = getattr(weights, "wheels", (weights,))
            paths = (getattr(part, key, "") for part in parts for key in ("hub", "path", "file"))
            yield from (path.rpartition("/")[2] for path in paths)
