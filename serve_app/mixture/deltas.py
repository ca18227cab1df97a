"""Deltas of an answer, joined."""

from collections.abc import Sequence

from actors.engine import Delta


def join_deltas(deltas: Sequence[Delta]) -> Delta:
    """One delta that says the same as all of `deltas` in their order.

    To add each delta to a whole as it comes would copy the whole text each time.
    """
    if len(deltas) == 1:
        return deltas[0]
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason]
    return Delta(
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        finish_reason=reasons[-1] if reasons else None,
        prompt_tokens=sum(delta.prompt_tokens for delta in deltas),
        completion_tokens=sum(delta.completion_tokens for delta in deltas),
        logprobs=tuple(logprob for delta in deltas for logprob in delta.logprobs),
        engine_s=sum((delta.engine_s for delta in deltas), 0.0),
        last=any(delta.last for delta in deltas),
    )
