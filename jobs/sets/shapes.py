"""Knows the shapes in which tools of the field write prompts and answers: ShareGPT, batch files of
OpenAI's API, samples of lm-eval, chats for fine-tuning.

Each shape is turned into the plain fields that `prompt_rows` and `outputs` read: `messages` or
`prompt`, an id, and a reference answer. An entry of any other shape stays as it is.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.sets.opened import SetError

Fields = Mapping[str, Any]
"""The fields of an entry, by name."""


class NothingToAsk(SetError):
    """A conversation in which the user says nothing; such entries of a set are left out and counted."""


SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
"""Roles as data sets write them, and what they mean."""

CONVERSATIONS = ("conversations", "conversation")
"""Fields of ShareGPT and its relatives that have the messages."""


def as_prompt(position: str, fields: Fields) -> Fields:
    """The fields of an entry of a set, in their plain form.

    A conversation that ends with the assistant's answer is a prompt up to the last message of the user;
    the answer is its reference.

    Raises:
        SetError: an entry of a known shape has no prompt that a model could be asked.
    """
    if "row_idx" in fields and isinstance(fields.get("row"), dict):  # the Hub's viewer of data sets
        fields = fields["row"]
    for is_shape, plain in (
        (is_batch_request, _from_batch_request),
        (is_lm_eval, _from_lm_eval),
        (is_conversation, _from_conversation),
    ):
        if is_shape(fields):
            fields = plain(position, fields)
            break
    return _without_answer(position, fields) if "messages" in fields else fields


def is_batch_request(fields: Fields) -> bool:
    """Whether an entry is a line of an input file of OpenAI's batch API."""
    return "custom_id" in fields and isinstance(fields.get("body"), dict)


def is_batch_reply(fields: Fields) -> bool:
    """Whether an entry is a line of an output file, or error file, of OpenAI's batch API."""
    return "custom_id" in fields and "response" in fields


def is_lm_eval(fields: Fields) -> bool:
    """Whether an entry is a line of lm-eval's `samples_*.jsonl` (`--log_samples`)."""
    return "doc_id" in fields and "arguments" in fields and "resps" in fields


def is_conversation(fields: Fields) -> bool:
    """Whether an entry has a conversation as ShareGPT has it."""
    return any(isinstance(fields.get(name), list | str) for name in CONVERSATIONS)


def _from_batch_request(position: str, fields: Fields) -> Fields:
    body = fields["body"]
    said = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise SetError(f"{position}: the batch request asks no chat: its body has no messages")
    if isinstance(system := body.get("instructions"), str):
        said = [{"role": "system", "content": system}, *said]
    return {"custom_id": fields["custom_id"], "messages": said}


def _from_lm_eval(position: str, fields: Fields) -> Fields:
    calls = lm_eval_calls(fields["arguments"])
    # A multiple choice asks for the likelihood of each of several continuations.
    if len(calls) != 1 or (len(calls[0]) > 1 and isinstance(calls[0][1], str)):
        raise SetError(
            f"{position}: this sample of lm-eval is a multiple choice; only samples of tasks that "
            "generate text can be asked"
        )
    plain = {name: fields[name] for name in ("doc_id", "filter") if name in fields}
    prompt = calls[0][0]
    if isinstance(prompt, list) and len(prompt) == 1:  # a chat, which lm-eval wraps once more
        prompt = prompt[0]
    target = fields.get("target")
    reference = {"reference": target} if isinstance(target, str) and target.strip() else {}
    messages = _messages_of(prompt)
    return plain | reference | ({"prompt": prompt} if messages is None else {"messages": messages})


def lm_eval_calls(arguments: Any) -> list[list[Any]]:
    """The arguments of each call of a sample of lm-eval: a list of lists in memory, and in files an
    object of objects (`gen_args_0`, `arg_0`)."""
    calls = list(arguments.values()) if isinstance(arguments, dict) else list(arguments or ())
    return [list(call.values()) if isinstance(call, dict) else [*call] for call in calls if call]


def _messages_of(prompt: Any) -> list[Any] | None:
    """The messages of a chat that lm-eval has written as JSON; None for a plain prompt."""
    if not (isinstance(prompt, str) and prompt.startswith("[{")):
        return None
    try:
        found = json.loads(prompt)
    except json.JSONDecodeError:
        return None
    is_chat = all(isinstance(each, dict) and "role" in each for each in found)
    return list(found) if is_chat else None


def _from_conversation(position: str, fields: Fields) -> Fields:
    name = next(name for name in CONVERSATIONS if isinstance(fields.get(name), list | str))
    where = f"{position}, field {name!r}"
    said = parse_list(where, fields[name])
    rest = {key: value for key, value in fields.items() if key not in CONVERSATIONS}
    messages = [to_message(where, each) for each in said]
    if not any(each["role"] == "user" for each in messages):
        raise NothingToAsk(f"{where} has no message of the user")
    return rest | {"messages": messages}


def to_message(where: str, said: Any) -> dict[str, Any]:
    """A message in OpenAI's form.

    Raises:
        SetError: the message has no speaker or no text, or a speaker who takes no part in a chat.
    """
    if not isinstance(said, dict):
        raise SetError(f"{where}: a message has a speaker and a text; it is {said!r}")
    speaker = said.get("from", said.get("role", said.get("user")))
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise SetError(f"{where}: the speaker {speaker!r} is not one of {', '.join(SPEAKERS)}")
    content = said.get("value", said.get("content", said.get("text")))
    return {"role": role, "content": plain_text(where, content)}


def plain_text(where: str, content: Any) -> Any:
    """The text of a content that may be a list of parts, as OpenAI's API has it.

    Raises:
        SetError: a part is no text, for example an image.
    """
    if not isinstance(content, list):
        return content
    for part in content:
        if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else part
            raise SetError(f"{where}: a part of a message is {kind!r}; only text can be asked")
    return "".join(part["text"] for part in content)


def parse_list(where: str, value: Any) -> Any:
    """A value as a list: tables of text have no lists, so a text is read as JSON.

    Raises:
        SetError: the text is no JSON.
    """
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise SetError(f"{where} must be a list, in CSV as JSON: {error}") from error


def _without_answer(position: str, fields: Fields) -> Fields:
    """A chat that ends with the answer becomes a prompt, and the answer its reference."""
    where = f"{position}, field 'messages'"
    said = parse_list(where, fields["messages"])
    if not isinstance(said, list) or len(said) < 2 or not all(isinstance(m, dict) for m in said):
        return fields
    *before, last = said
    if last.get("role") != "assistant" or before[-1].get("role") != "user":
        return {**fields, "messages": said}
    references = fields.get("references") or fields.get("reference") or last.get("content")
    rest = {name: value for name, value in fields.items() if name not in ("references", "reference")}
    return rest | {"messages": before, "reference": references}


def last_answer(messages: Sequence[Any]) -> Any:
    """The text of a chat's last message if the assistant wrote it; None otherwise.

    Arena-Hard writes the content as an object with the fields `answer` and maybe `thought`.
    """
    last = messages[-1] if messages and isinstance(messages[-1], dict) else {}
    if SPEAKERS.get(str(last.get("role", last.get("from")))) != "assistant":
        return None
    content = last.get("content", last.get("value"))
    return content.get("answer") if isinstance(content, dict) else content
