"""What a person can do about a model that thought and did not answer."""

from actors.engine import Delta
from configs.schema import Sampling


def only_reasoning(whole: Delta, sampling: Sampling) -> str:
    """The message about a call that ended with reasoning and without an answer, with the advice.

    Args:
        whole: what the model wrote.
        sampling: how the model was asked.
    """
    spent = f"it spent {whole.completion_tokens} tokens on reasoning and wrote no answer"
    off = (
        "template: {enable_thinking: false} for the model turns reasoning off, if its chat template can"
    )
    if sampling.thinking_tokens is None:
        limits = f"a limit for reasoning (thinking_tokens) beside max_tokens ({sampling.answer_tokens})"
    else:
        limits = f"more thinking_tokens ({sampling.thinking_tokens})"
    return f"{spent}; {off}; {limits} leaves room for the answer"
