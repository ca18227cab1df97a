"""The requests to llama.cpp's server that make it answer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from actors.engine import Message
from actors.engines.llamacpp_sampling import sampling_fields
from actors.text.answer_reader import BLANK, AnswerReader
from actors.text.thinking_marks import Family
from configs.schema import Sampling


def is_begun(messages: Sequence[Message]) -> bool:
    """Whether the answer continues the conversation's last message."""
    return len(messages) > 1 and messages[-1]["role"] == "assistant"


def chat_request(
    messages: Sequence[Message],
    sampling: Sampling,
    template: Mapping[str, Any],
    family: Family | None,
    reader: AnswerReader,
) -> dict[str, Any]:
    """The request for an answer to a conversation.

    The form that the answer has to have is left out while the model may think.

    Args:
        template: the arguments of the chat template.
        family: how the model marks its reasoning.
        reader: reads the answer.
    """
    request = _common(sampling) | {"messages": list(messages), "chat_template_kwargs": dict(template)}
    if reader.is_form_later:
        del request["grammar"]
    if family is not None and (reader.may_think or sampling.thinking_tokens is not None):
        request["timings_per_token"] = True  # says how many tokens each chunk ends
        if sampling.thinking_tokens is not None:
            # With 0, a line break behind the mark in the prompt would count as the end.
            request |= _thinking_limit(family, max(1, sampling.thinking_tokens))
    return request


def continuing_request(prompt: str, sampling: Sampling) -> dict[str, Any]:
    """The request for the rest of an answer. llama.cpp's own way to continue a message leaves that
    message out.

    Args:
        prompt: the whole prompt, which ends with the answer's beginning.
    """
    request = _common(sampling) | {"prompt": prompt}
    if sampling.thinking_tokens is not None:
        request["timings_per_token"] = True
    if sampling.top_logprobs is not None:
        request["logprobs"] = request["top_logprobs"]  # a number, where a prompt is sent
    return request


def with_text(control: Collection[str]) -> str:
    """The grammar of a text that begins neither with a blank nor with a control token.

    llama.cpp reads control tokens in grammars as their texts, so that a text of control tokens alone
    would do, of which nothing is left. So the text cannot begin with their first characters.
    """
    firsts = {*BLANK, *(token[0] for token in control)}
    escaped = "".join(f"\\U{ord(first):08X}" for first in sorted(firsts))
    return f"root ::= [^{escaped}] [^\\x00]*"


def second_request(
    prompt: str,
    sampling: Sampling,
    family: Family,
    reader: AnswerReader,
    control: Collection[str],
) -> dict[str, Any]:
    """The request for the answer behind a thought (`AnswerReader`).

    The answer has text (`with_text`), unless it has a form of its own. A further thought is ended at
    once.

    Args:
        prompt: the whole prompt, which ends with the closed thought.
        control: the texts of the model's control tokens.
    """
    request = {"grammar": with_text(control)} | continuing_request(prompt, sampling)
    request |= {"max_tokens": max(1, reader.room), "timings_per_token": True}
    return request | _thinking_limit(family, 1)


def _common(sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "stream": True,  # a call that is not streamed cannot be cancelled
        "stream_options": {"include_usage": True},
        "return_progress": True,
    } | sampling_fields(sampling)
    if sampling.top_logprobs is not None:
        # With 0, llama.cpp would also leave out the log-probability of the written token.
        request |= {"logprobs": True, "top_logprobs": max(1, sampling.top_logprobs)}
    return request


def _thinking_limit(family: Family, tokens: int) -> dict[str, Any]:
    return {
        "reasoning_budget_tokens": tokens,
        "reasoning_budget_start_tag": family.begins[0],
        "reasoning_budget_end_tags": list(dict.fromkeys([family.closing, family.end])),
        "reasoning_budget_message": "",  # without this field nothing is forced
    }
