"""The clients of benchmarks against a server that does to them what a broken one would."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.shared import open_loop
from benchmarks.shared.open_loop import Load, Outcomes, arrivals, question
from benchmarks.shared.outcome import HUNG, LOST, OUTCOME, Outcome

MOA = {"degraded": False, "cut": False}
ALL_AT_ONCE = (0.0, 0.0, 0.0, 0.0)


class Server:
    """Answers each question as `behave` has it at its nth attempt. release: lets hung ones end."""

    def __init__(self, behave: Any) -> None:
        self._behave, self._seen, self.release = behave, Counter[str](), asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = body["messages"][0]["content"]
        assert asked == question(body["seed"])
        self._seen[asked] += 1
        how = self._behave(self._seen[asked])
        if how == "hang":
            await self.release.wait()
        if how == "lose":
            assert request.transport is not None
            request.transport.close()
        if isinstance(how, int):
            return web.json_response(
                {"error": {"message": "no"}}, status=how, headers={"Retry-After": "0"}
            )
        return await _stream(request, how) if body.get("stream") else _whole(how)


def _whole(how: Any) -> web.Response:
    message = {"role": "assistant", "content": "said"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    head = {"id": "1", "object": "chat.completion", "created": 0, "model": "mix"}
    return web.json_response(head | {"choices": [choice], "moa": MOA | (how or {})})


async def _stream(request: web.Request, how: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "mix"}
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": "said"}}]}]
    if how != "end early":
        chunks.append({"choices": [], "moa": MOA})
    for chunk in chunks:
        await response.write(f"data: {json.dumps(head | chunk)}\n\n".encode())
    return response


async def offered(
    behave: Any, file: Path, due_s: tuple[float, ...] = (0.0,), **more: Any
) -> list[Outcome]:
    server, app = Server(behave), web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    async with TestServer(app) as running:
        load = Load(
            str(running.make_url("")).rstrip("/"), "mix", due_s, more.pop("deadline_s", 30), **more
        )
        try:
            await open_loop._offer(load, file)
        finally:
            server.release.set()
    return Outcomes(load, file)()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "START_S", 0.0)


@pytest.mark.parametrize("client", ["aiohttp", "openai"])
async def test_every_request_has_an_outcome_of_its_own_streamed_or_not(
    tmp_path: Path, client: Any
) -> None:
    found = await offered(lambda _: None, tmp_path / "f", ALL_AT_ONCE, client=client, streamed=True)
    assert sorted(outcome.number for outcome in found) == [0, 1, 2, 3]
    assert {outcome.text for outcome in found} == {"said"}
    assert all(outcome.is_whole_at_once for outcome in found)


async def test_a_degraded_answer_is_answered_but_not_whole(tmp_path: Path) -> None:
    [found] = await offered(lambda _: {"degraded": True}, tmp_path / "f")
    assert (found.is_answered, found.is_degraded, found.is_whole_at_once) == (True, True, False)


async def test_openai_s_client_comes_again_and_each_attempt_is_noted(tmp_path: Path) -> None:
    ways = {1: 503, 2: "lose"}
    [found] = await offered(ways.get, tmp_path / "f", client="openai")
    assert [attempt.status for attempt in found.attempts] == [503, LOST, 200]
    assert (found.is_answered, found.is_whole_at_once) == (True, False)


async def test_a_refusal_keeps_its_retry_after(tmp_path: Path) -> None:
    [found] = await offered(lambda _: 429, tmp_path / "f")
    assert (found.status, found.attempts[0].retry_after, found.is_answered) == (429, "0", False)


@pytest.mark.parametrize("client", ["aiohttp", "openai"])
async def test_what_does_not_end_is_given_up_and_counted_as_hung(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_loop, "LATE_S", 0.0)
    ways = {1: "hang"}
    [found] = await offered(ways.get, tmp_path / "f", client=client, deadline_s=0.2)
    assert found.attempts[0].status == HUNG
    assert found.is_hung


async def test_a_stream_that_ends_early_is_no_answer(tmp_path: Path) -> None:
    found = await offered(
        lambda _: "end early", tmp_path / "f", (0.0, 0.0), client="openai", streamed=True
    )
    [streamed] = [outcome for outcome in found if outcome.number == 1]
    assert not streamed.is_answered
    assert streamed.cut
    assert "ended before" in streamed.error


async def test_a_late_start_counts_for_the_request(tmp_path: Path) -> None:
    [found] = await offered(lambda _: None, tmp_path / "f", (-5.0,))
    assert found.wall_s > 5


def test_arrivals_come_at_the_rate_and_are_the_same_for_the_same_seed() -> None:
    moments = arrivals(10, 1000, seed=3)
    assert moments == arrivals(10, 1000, seed=3) != arrivals(10, 1000, seed=4)
    assert 9_600 < len(moments) < 10_400  # four standard deviations
    assert list(moments) == sorted(moments)
    assert moments[-1] < 1000


def test_a_moment_is_past_when_all_that_was_due_before_it_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "outcomes"
    so_far = Outcomes(Load("", "mix", (1.0, 2.0, 3.0), 30), file)
    assert (so_far(), so_far.has_all_due(before=101.5)) == ([], False)
    lines = [OUTCOME.dump_json(Outcome(n, 101.0 + n, 110.0, ())) + b"\n" for n in (2, 0)]
    file.write_bytes(lines[0] + lines[1][:9])
    assert [outcome.number for outcome in so_far()] == [2], "half a line is not read"
    file.write_bytes(b"".join(lines))
    assert [outcome.number for outcome in so_far()] == [2, 0]
    assert so_far.has_all_due(before=101.5)
    assert not so_far.has_all_due(before=102.5), "number 1 has not ended"
