"""llama.cpp's own HTTP server on a Unix socket: it applies the chat template and tokenizes.

The library has no functions for that. A library's Server always opens a port, without authentication.
So we have it listen on a socket in a folder that only this user can enter, and protect the socket with
a random key.
"""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from actors.engine import Message
from actors.engines.llamacpp_request import is_begun
from actors.text.thinking_marks import Family
from actors.text.turns import is_of_template, refusal
from configs.errors import BadRequest, ContextTooLong, EngineError, EngineUnavailable

NAME = "llama.sock"
"""The name of the socket in its folder."""


class ServerSocket:
    """The socket of one server, and our connections to the socket.

    Args:
        folder: a folder that only this user can enter.
        model: the model's name, for errors.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._model = model
        self._http: aiohttp.ClientSession | None = None
        self.path = folder / NAME
        """Where the server has to listen."""
        self.key = secrets.token_urlsafe(32)
        """The key that the server has to demand."""

    def open(self) -> None:
        """Begin to make connections."""
        self._http = aiohttp.ClientSession(
            "http://llama",
            connector=aiohttp.UnixConnector(str(self.path)),
            headers={"Authorization": f"Bearer {self.key}"},
        )

    async def close(self) -> None:
        """End all connections."""
        if self._http is not None:
            await self._http.close()

    async def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers; without a body, the request is a GET.

        Raises:
            RequestError: the server answers with an error, or does not answer.
        """
        assert self._http is not None
        try:
            method = "GET" if body is None else "POST"
            async with self._http.request(method, path, json=body) as response:
                answer = await response.json()
        except (
            aiohttp.ClientError,
            RuntimeError,
        ) as error:  # a session that is closed raises the latter
            raise EngineUnavailable(f"llama.cpp: {error}", model=self._model) from error
        if "error" in answer:
            raise server_error(answer["error"], self._model)
        return answer

    async def prompt(
        self, messages: Sequence[Message], template: Mapping[str, Any], family: Family | None
    ) -> str:
        """The prompt of a conversation. The answer continues a last message of the assistant.

        Args:
            template: the arguments of the chat template.
            family: how the model marks its reasoning. A thought that the template begins is ended
                before the last message of the assistant.
        """
        turns = list(messages[:-1] if is_begun(messages) else messages)
        body = {"messages": turns, "chat_template_kwargs": dict(template)}
        prompt = str((await self.ask("/apply-template", body))["prompt"])
        if not is_begun(messages):
            return prompt
        is_open = family is not None and family.opens(prompt)
        return prompt + (family.closing if family and is_open else "") + messages[-1]["content"]

    async def token_ends(self, text: str, *, is_prompt: bool = False) -> list[int]:
        """Where each token of a text ends, in characters.

        Args:
            is_prompt: whether control tokens in the text are control, and the model's token for the
                beginning of a text is counted.
        """
        body = {"content": text, "with_pieces": True}
        if is_prompt:
            body |= {"parse_special": True, "add_special": True}
        answer = await self.ask("/tokenize", body)
        ends, seen = [], bytearray()
        for token in answer["tokens"]:
            piece = token["piece"]
            seen += piece.encode() if isinstance(piece, str) else bytes(piece)
            ends.append(len(seen))
        # Bytes to characters: a character split over tokens ends with its last byte.
        starts = [n for n, byte in enumerate(seen) if byte & 0xC0 != 0x80]
        return _characters(ends, [*starts[1:], len(seen)])

    async def mark_tokens(self, text: str) -> int:
        """How many tokens a text takes within a prompt."""
        body = {"content": text, "parse_special": True}
        return len((await self.ask("/tokenize", body))["tokens"])


def server_error(error: dict[str, Any], model: str) -> EngineError | BadRequest:
    """The error to raise for one that the server tells."""
    message = str(error.get("message", error))
    if is_of_template(message):
        return refusal(message, model)
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLong(message, model=model, param="messages")
    if error.get("code") == 400:
        return BadRequest(message, model=model)
    return EngineError(message, model=model)


def _characters(byte_ends: list[int], character_ends: list[int]) -> list[int]:
    """Count the characters that end at or before each byte position. Both lists are sorted."""
    counts, done = [], 0
    for end in byte_ends:
        while done < len(character_ends) and character_ends[done] <= end:
            done += 1
        counts.append(done)
    return counts
