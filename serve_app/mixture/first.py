"""How sure a model was of what it wrote, by the probabilities of its tokens.

The measure is the mean log-probability of the tokens, as in work on picking answers by likelihood
(arXiv 2510.02377). A longer answer is no less sure for its length. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def mean_logprob(logprobs: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean log-probability of tokens in OpenAI's form; None if there are none.

    Args:
        logprobs: OpenAI's objects, one for each token.
    """
    told = [value for each in logprobs if isinstance(value := each.get("logprob"), int | float)]
    return sum(told) / len(told) if told else None


def is_sure(confidence: float | None, tau: float) -> bool:
    """Whether an answer is sure enough. An answer whose probabilities are not known never is."""
    return confidence is not None and confidence >= tau
