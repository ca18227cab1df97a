"""Whether an answer keeps the constraints of its request that the recipe's aggregator would have kept.

An engine holds a model to a form (`response_format`) and to constraints on tokens. A fallback may have
an engine that cannot do so, and other numbers for its tokens. A proposal that stands in was asked for
without these constraints. Such an answer is still worth more than an error, but it says by name what it
was not held to. In the same way, an answer names tools that had no room in the model's context.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from actors.engine import Message
from configs.extra_parameters import CONSTRAINTS, SENT_AS, can_honour
from configs.schema import Sampling
from configs.tool_use import ToolUse
from serve_app.mixture.events import ProposalDone
from serve_app.mixture.unwilling import answering

BY_NUMBER = ("logit_bias", "stop_token_ids", "allowed_token_ids")
"""Constraints that name tokens by the numbers that they have in one model."""


def of_fallback(sampling: Sampling) -> Sampling:
    """The sampling for another model than the one that was to answer, which has other tokens."""
    if not any(name in sampling.extra for name in BY_NUMBER):
        return sampling
    extra = {name: value for name, value in sampling.extra.items() if name not in BY_NUMBER}
    return sampling.model_copy(update={"extra": extra})


def may_leave_out(tools: ToolUse | None) -> bool:
    """Whether a model may answer without the tools if they do not fit into its context. It may if the
    request leaves it to the model whether to call a tool. For example, Open WebUI offers 22 tools with
    each question, and these take 7,000 tokens."""
    return tools is not None and tools.choice == "auto"


def without_tools(sampling: Sampling) -> Sampling:
    """The sampling of an answer that calls no tools."""
    extra = {name: value for name, value in sampling.extra.items() if name != "tool_use"}
    return sampling.model_copy(update={"extra": extra})


def not_held(
    sampling: Sampling, text: str, engine: str | None, *, has_tools: bool = True
) -> tuple[str, ...]:
    """The constraints of the request that the answer may not keep, by name.

    Args:
        sampling: how the answer was to be sampled.
        text: the answer.
        engine: the engine of the fallback that wrote the answer; None for a proposal.
        has_tools: whether the fallback's prompt had the tools of the request.
    """
    return tuple(
        name
        for name, value in sampling.extra.items()
        if name in CONSTRAINTS
        and (
            engine is None
            or name in BY_NUMBER
            or not can_honour(engine, name, value)
            or (name == "tool_use" and not has_tools)
        )
        and not _keeps(text, name, value)
    )


def why_no_proposal(messages: Sequence[Message], sampling: Sampling) -> str | None:
    """Why no proposal may be the answer of a request as it stands; None if one may.

    Proposals are whole answers, and nothing has held them to constraints of the request.
    """
    if messages and messages[-1]["role"] == "assistant":
        return "the request begins the answer, and only an aggregator goes on with it"
    held = [name for name in sampling.extra if name in CONSTRAINTS]
    if held:
        names = ", ".join(SENT_AS.get(name, name) for name in held)
        return f"the request holds the answer to {names}, and no proposal was held to it"
    return None


def most_fitting(proposals: Sequence[ProposalDone], sampling: Sampling) -> ProposalDone:
    """The proposal that would stand in for the answer: the first proposal that may have the requested
    form, or else the first of all. A few proposals that refuse do not count (`unwilling.py`)."""
    structure, kept = sampling.extra.get("structure"), answering(proposals)
    if structure is None:
        return kept[0]
    return next((each for each in proposals if _may_have(each.text, structure)), kept[0])


def _keeps(text: str, name: str, value: Any) -> bool:
    """Whether a text keeps a constraint for certain."""
    if name == "bad_words":
        return not any(word in text for word in value)
    # A schema, a regular expression or a grammar of a client is not run here: it may take forever.
    is_plain = name == "structure" and not {"json_object", "choice"}.isdisjoint(value)
    return is_plain and _may_have(text, value)


def _may_have(text: str, structure: Mapping[str, Any]) -> bool:
    """Whether a text may have a form, as far as that can be told without running the form."""
    if "choice" in structure:
        return text in structure["choice"]
    if not {"json_object", "json_schema"}.isdisjoint(structure):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return "json_schema" in structure or isinstance(found, dict)
    return True
