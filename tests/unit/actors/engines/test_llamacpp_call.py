"""How the chunks of a native call cross from its thread, without llama.cpp."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.engines import llamacpp_call
from actors.engines.llamacpp_call import NativeCall, NativeFailure

PROGRESS = {"prompt_progress": {"processed": 5}, "choices": [{"delta": {"content": None}}]}
LAST = {"choices": [], "usage": {"completion_tokens": 3}}


def word(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


class Server:
    """Gives the chunks, then fails if it has a failure."""

    def __init__(self, *chunks: dict[str, Any], failure: Exception | None = None) -> None:
        self.chunks = chunks
        self.failure = failure

    def handle_chat_completions(self, _request: str, on_chunk: Callable[[Any], bool]) -> None:
        for chunk in self.chunks:
            assert not on_chunk(chunk)
        if self.failure is not None:
            raise self.failure


async def crossings(server: Server, streamed: bool) -> list[list[dict[str, Any]]]:
    with ThreadPoolExecutor(1) as pool:
        call = NativeCall(server.handle_chat_completions, "{}", threading.Event(), streamed)
        return [chunks async for chunks in call.run(pool)]


CHUNKS = [PROGRESS, word("a"), word("b"), word("c"), LAST]


async def test_of_an_answer_that_is_read_along_each_chunk_crosses_alone() -> None:
    assert await crossings(Server(*CHUNKS), True) == [[chunk] for chunk in CHUNKS]


async def test_of_another_answer_all_after_the_first_text_cross_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llamacpp_call, "PIECE_S", 3600)
    assert await crossings(Server(*CHUNKS), False) == [[PROGRESS], [word("a")], CHUNKS[2:]]


async def test_it_is_not_held_back_for_longer_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(llamacpp_call, "PIECE_S", 4)
    monkeypatch.setattr(llamacpp_call, "monotonic", lambda: next(clock))
    words = [word(str(n)) for n in range(9)]
    found = await crossings(Server(*words), False)
    assert [chunk for chunks in found for chunk in chunks] == words
    assert max(map(len, found)) == 4


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_came_before_a_failure_crosses_before_it(streamed: bool) -> None:
    server = Server(word("a"), word("b"), failure=RuntimeError("boom"))
    found: list[dict[str, Any]] = []

    async def read(pool: ThreadPoolExecutor) -> None:
        async for chunks in NativeCall(
            server.handle_chat_completions, "{}", threading.Event(), streamed
        ).run(pool):
            found.extend(chunks)

    with ThreadPoolExecutor(1) as pool, pytest.raises(NativeFailure, match="boom"):
        await read(pool)
    assert found == [word("a"), word("b")]
