"""Load on the API from a process of its own: requests at set moments, whether or not others have ended.

Latencies count from the moment at which a request was due, so that neither a server nor a client that
falls behind hides it (open loop). Each request says its number and draws its seed from it, so that an
answer can be told from the answer to another.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import aiohttp
import httpx2
import uvloop
from openai import APIConnectionError, APIError, AsyncOpenAI

from benchmarks.shared.harness import QUESTIONS, ask
from benchmarks.shared.outcome import HUNG, LOST, OUTCOME, Attempt, Outcome

LATE_S = 5.0
"""An attempt that has not ended so long after the mixture's deadline hangs."""
START_S, STAGGER_S = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, and when.

    due_s: seconds from the start; deadline_s: the mixture's own; client: `aiohttp` asks once, `openai`
    as OpenAI's library does unless told otherwise, with its retries; streamed: every second answer.
    """

    url: str
    model: str
    due_s: tuple[float, ...]
    deadline_s: float
    client: Literal["aiohttp", "openai"] = "aiohttp"
    streamed: bool = False


Asker = Callable[[int, float], Awaitable[Outcome]]
_attempts: ContextVar[list[Attempt]] = ContextVar("attempts")


def arrivals(per_s: float, seconds: float, seed: int) -> tuple[float, ...]:
    """The moments of a Poisson process with that rate, in seconds from its start."""
    draw = random.Random(seed)
    gaps = itertools.accumulate(draw.expovariate(per_s) for _ in itertools.count())
    return tuple(itertools.takewhile(lambda at: at < seconds, gaps))


def question(number: int) -> str:
    """What only request `number` asks."""
    return f"Request {number}: {QUESTIONS[number % len(QUESTIONS)]}"


def is_streamed(number: int) -> bool:
    """Whether the answer is, where a load streams any."""
    return number % 2 == 1


@contextmanager
def client_process() -> Iterator[ProcessPoolExecutor]:
    """A process for clients, which shares no interpreter with Ray's driver."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(time.monotonic).result()  # it is up
        yield pool


def offer(pool: ProcessPoolExecutor, load: Load, file: Path) -> Future[None]:
    """Start the load; each outcome becomes a line of `file` when it is there."""
    return pool.submit(_in_loop, _offer, load, file)


def saturated(pool: ProcessPoolExecutor, load: Load, clients: int, seconds: float) -> float:
    """Answers per second where so many clients ask again as soon as they have an answer.

    It counts after as many seconds of warming up. Of the load it takes the URL and the model.
    """
    per_s: float = pool.submit(_in_loop, _saturated, load, clients, seconds).result()
    return per_s


class Outcomes:
    """Those of a load so far, in the order in which they came. file: as `offer` has it."""

    def __init__(self, load: Load, file: Path) -> None:
        self._load, self._file, self._read = load, file, 0
        self._found: list[Outcome] = []

    def __call__(self) -> list[Outcome]:
        """All that have come by now."""
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                lines = file.read().split(b"\n")[:-1]
            self._read += sum(len(line) + 1 for line in lines)
            self._found += [OUTCOME.validate_json(line) for line in lines]
        return list(self._found)

    def has_all_due(self, before: float) -> bool:
        """Whether all requests have ended that were due before a moment of the monotonic clock."""
        found = self()
        if not found:
            return False
        start = found[0].due - self._load.due_s[found[0].number]
        return sum(outcome.due < before for outcome in found) == sum(
            start + due_s < before for due_s in self._load.due_s
        )


def _in_loop(work: Callable[..., Any], *arguments: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work(*arguments))


async def _offer(load: Load, file: Path) -> None:
    client = _aiohttp(load) if load.client == "aiohttp" else _openai(load)
    async with client as asker, asyncio.TaskGroup() as requests:
        with file.open("ab", buffering=0) as lines:
            start = time.monotonic() + START_S
            asked = [
                requests.create_task(_ask_when_due(asker, number, start + due_s))
                for number, due_s in enumerate(load.due_s)
            ]
            for outcome in asyncio.as_completed(asked):
                lines.write(OUTCOME.dump_json(await outcome) + b"\n")


async def _ask_when_due(asker: Asker, number: int, due: float) -> Outcome:
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    return await asker(number, due)


@asynccontextmanager
async def _aiohttp(load: Load) -> AsyncIterator[Asker]:
    async def asker(number: int, due: float) -> Outcome:
        began = time.monotonic()
        stream = load.streamed and is_streamed(number)
        try:
            async with asyncio.timeout(load.deadline_s + LATE_S):
                answer = await ask(
                    session, load.url, load.model, question(number), stream=stream, seed=number
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            status, ended = HUNG if isinstance(error, TimeoutError) else LOST, time.monotonic()
            return Outcome(number, due, ended, (Attempt(status, began, ended),), error=repr(error))
        attempts = (Attempt(answer.status, began, answer.ended, answer.retry_after),)
        return Outcome(number, due, answer.ended, attempts, answer.text, answer.moa, answer.error)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield asker


class _Noting(httpx2.AsyncBaseTransport):
    """Takes down each attempt of the request whose task this is."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        began, status, retry_after = time.monotonic(), LOST, None
        try:
            response = await self._inner.handle_async_request(request)
            status, retry_after = response.status_code, response.headers.get("retry-after")
            return response
        except httpx2.ReadTimeout:
            status = HUNG
            raise
        finally:
            _attempts.get().append(Attempt(status, began, time.monotonic(), retry_after))

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def _openai(load: Load) -> AsyncIterator[Asker]:
    async def asker(number: int, due: float) -> Outcome:
        attempts: list[Attempt] = []
        _attempts.set(attempts)
        text, moa, error, cut = "", dict[str, Any](), "", False
        try:
            text, moa = await _asked(client, load, number)
        except TimeoutError:
            attempts[-1] = Attempt(HUNG, attempts[-1].began, time.monotonic())
            error = "the stream did not end"
        except (APIConnectionError, httpx2.HTTPError) as failure:
            cut = attempts[-1].status > 0
            error = f"{type(failure).__name__}: {failure} ({failure.__cause__!r})"
        except APIError as failure:
            error = f"{type(failure).__name__}: {failure}"
        return Outcome(number, due, time.monotonic(), tuple(attempts), text, moa, error, cut)

    give_up_s = load.deadline_s + LATE_S
    http = httpx2.AsyncClient(transport=_Noting(), timeout=httpx2.Timeout(give_up_s))
    async with AsyncOpenAI(base_url=f"{load.url}/v1", api_key="none", http_client=http) as client:
        yield asker


async def _asked(client: Any, load: Load, number: int) -> tuple[str, dict[str, Any]]:
    """The answer's text and account. Untyped, for OpenAI's types know no `moa`.

    Raises:
        TimeoutError: a stream that had begun has not ended in time.
        RemoteProtocolError: it ended early.
    """
    messages = [{"role": "user", "content": question(number)}]
    create, stream = client.chat.completions.create, load.streamed and is_streamed(number)
    answer = await create(model=load.model, messages=messages, seed=number, stream=stream)
    if not stream:
        return answer.choices[0].message.content, answer.moa
    text, moa = "", dict[str, Any]()
    async with asyncio.timeout(load.deadline_s + LATE_S):
        async for chunk in answer:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            moa = getattr(chunk, "moa", None) or moa
    if not moa:
        raise httpx2.RemoteProtocolError("the stream ended before the answer had")
    return text, moa


async def _saturated(load: Load, clients: int, seconds: float) -> float:
    ended: list[float] = []
    stop = time.monotonic() + 2 * seconds
    async with _aiohttp(load) as asker:

        async def client(first: int) -> None:
            await asyncio.sleep(first * STAGGER_S / clients)  # or answers come in bursts for ever
            for number in itertools.count(first, clients):
                if (now := time.monotonic()) > stop:
                    return
                outcome = await asker(number, now)
                if outcome.is_answered:
                    ended.append(outcome.ended)

        await asyncio.gather(*map(client, range(clients)))
    return sum(stop - seconds <= at < stop for at in ended) / seconds
