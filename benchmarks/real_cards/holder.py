"""An engine in a process of its own, as a replica holds one, that takes orders over a socket.

`HeldEngine` is the side of the check, `main` the process. The process ends at once when the check ends,
however it ends: a thread of it reads the socket and sees that the other side is gone.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import psutil
from pydantic import TypeAdapter

from actors.engine import Message, Share, Sleeper
from actors.engines import create
from configs.schema import Model, Sampling

ROOT = Path(__file__).parents[2]
GONE_S = 5.0
"""Most seconds until the processes of a killed engine are gone."""
STOP_S = 15.0
"""Most seconds that an engine may take to stop when the check is done with it."""
STORY: list[Message] = [{"role": "user", "content": "Tell me a long story. " * 20}]
"""The prompt of which the speed is measured."""
PROBE: list[Message] = [{"role": "user", "content": "Name three rivers and where they end."}]
"""The prompt whose greedy answer is compared before and after sleep."""
PROBE_TOKENS = 12
"""Tokens of the answer to PROBE."""
WITHOUT_SLEEP = {"sleep": "stop", "wake": "start"}
"""What stands for an order at an engine that cannot sleep."""
MOST_LINE = 1 << 24
"""Most bytes of an answer of the process."""
MODEL: TypeAdapter[Model] = TypeAdapter(Model)


class HolderError(Exception):
    """The engine failed, or its process is gone."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an engine answered."""

    tokens: int
    """Tokens of all answers together."""
    seconds: float
    """Seconds from the first call to the end of the last answer."""
    decode: float
    """Tokens per second of one answer after its first token, the mean over the answers."""
    longest_gap_s: float
    """The longest time between two pieces of text of one answer."""

    @property
    def rate(self) -> float:
        """Tokens per second of all answers together."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What became of the processes of an engine that was killed."""

    children: int
    """Processes that it had started."""
    alive: int
    """Of these, how many still ran after GONE_S."""
    seconds: float
    """Seconds until they were gone, at most GONE_S."""


class Engine(Protocol):
    """What a check does with one engine. `HeldEngine` does it in a process; tests have their own."""

    @property
    def pid(self) -> int:
        """The process that stands for the replica; 0 without one."""

    async def spawn(self) -> None:
        """Start the process, without the engine."""

    async def order(self, what: str, **arguments: Any) -> Any:
        """Do one of: start, stop, sleep, wake, answer, speed, stream, halt. Return what it gives.

        Raises:
            HolderError: the engine failed, or its process is gone.
        """

    async def kill(self) -> Killed:
        """Kill the process without a chance to clean up; return when its children are gone."""

    async def close(self) -> None:
        """Stop the engine and end the process."""


class HeldEngine:
    """An engine in a child process of this one."""

    def __init__(self, name: str, model: Model, share: Share, log: Path) -> None:
        self._settings = {
            "name": name,
            "model": model.model_dump(mode="json"),
            "share": asdict(share),
        }
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "benchmarks.real_cards.holder", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        ours.setblocking(False)
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=MOST_LINE)
        await self.order("create", **self._settings)

    async def order(self, what: str, **arguments: Any) -> Any:
        if self._reader is None or self._writer is None:
            raise HolderError(f"{self._name}: its process does not run")
        try:
            self._writer.write(json.dumps({"order": what} | arguments).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except asyncio.CancelledError:
            self._end()  # its answer would be taken for that of the next order
            raise
        except (OSError, ValueError) as error:
            self._end()
            raise HolderError(f"{self._name}: the connection to its process broke: {error}") from error
        if not line:
            self._end()
            raise HolderError(f"{self._name}: its process ended during {what!r}: {self._log.name}")
        reply = json.loads(line)
        if "error" in reply:
            raise HolderError(f"{self._name}: {reply['error']}")
        return reply["value"]

    async def kill(self) -> Killed:
        process = self._process
        if process is None or process.poll() is not None:
            raise HolderError(f"{self._name}: its process does not run")
        children = psutil.Process(process.pid).children(recursive=True)
        began = time.perf_counter()
        process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, GONE_S)
        seconds = time.perf_counter() - began
        self._end()
        return Killed(len(children), len(alive), seconds)

    async def close(self) -> None:
        with suppress(HolderError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.order("stop")
        self._end()

    def _end(self) -> None:
        """End the process and all that it started, now."""
        process, self._process = self._process, None
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
        if process is None:
            return
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()


class _Held:
    """The engine inside the process, and the orders that it takes."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._streaming: asyncio.Task[Speed] | None = None
        self._halted = False

    async def do(self, what: str, arguments: dict[str, Any]) -> Any:
        """Do an order; return what goes back."""
        match what:
            case "create":
                model = MODEL.validate_json(json.dumps(arguments["model"]))
                self._engine = create(arguments["name"], model, Share(**arguments["share"]))
            case "start" | "stop" | "sleep" | "wake":
                # An engine that cannot sleep leaves the card by its end, and comes back by a start.
                can = isinstance(self._engine, Sleeper)
                await getattr(self._engine, what if can else WITHOUT_SLEEP.get(what, what))()
            case "answer":
                return await self._answer()
            case "speed":
                return asdict(await self._speed(arguments["sequences"], arguments["tokens"]))
            case "stream":
                self._halted = False
                self._streaming = asyncio.create_task(self._stream(arguments["tokens"]))
            case "halt":
                self._halted = True
                assert self._streaming is not None
                return asdict(await self._streaming)
            case _:
                raise ValueError(f"there is no order {what!r}")
        return None

    async def _answer(self) -> str:
        sampling = Sampling(max_tokens=PROBE_TOKENS, temperature=0)
        async with aclosing(self._engine.stream(PROBE, sampling)) as deltas:
            return "".join([delta.text + delta.reasoning async for delta in deltas])

    async def _speed(self, sequences: int, tokens: int) -> Speed:
        began = time.perf_counter()
        answers = await asyncio.gather(*[self._time(seed, tokens) for seed in range(sequences)])
        return _together(answers, time.perf_counter() - began)

    async def _stream(self, tokens: int) -> Speed:
        """One answer after the other, until the order `halt`."""
        began = time.perf_counter()
        answers: list[tuple[int, float, float]] = []
        while not self._halted:
            answers.append(await self._time(len(answers), tokens, lambda: self._halted))
        return _together(answers, time.perf_counter() - began)

    async def _time(
        self, seed: int, tokens: int, halted: Callable[[], bool] = lambda: False
    ) -> tuple[int, float, float]:
        """Tokens of an answer, tokens per second after the first one, and the longest gap."""
        sampling = Sampling(max_tokens=tokens, seed=seed)
        pieces, counted, times = 0, 0, [time.perf_counter()]
        async with aclosing(self._engine.stream(STORY, sampling)) as deltas:
            async for delta in deltas:
                counted += delta.completion_tokens
                if delta.text or delta.reasoning:
                    pieces += 1
                    times.append(time.perf_counter())
                if halted():
                    break
        written = counted or pieces
        writing_s = times[-1] - times[1] if len(times) > 2 else 0.0
        gaps = [after - before for before, after in pairwise(times)]
        return written, (written - 1) / writing_s if writing_s else 0.0, max(gaps, default=0.0)


def _together(answers: list[tuple[int, float, float]], seconds: float) -> Speed:
    return Speed(
        tokens=sum(tokens for tokens, _, _ in answers),
        seconds=seconds,
        decode=sum(rate for _, rate, _ in answers) / max(1, len(answers)),
        longest_gap_s=max((gap for _, _, gap in answers), default=0.0),
    )


async def serve(connection: socket.socket) -> None:
    """Take orders, one after the other, until the other side is gone; the process ends then."""
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                loop.call_soon_threadsafe(orders.put_nowait, line)
        os._exit(0)  # even if the engine's start holds the event loop

    threading.Thread(target=read, daemon=True, name="orders").start()
    held = _Held()
    while True:
        order = json.loads(await orders.get())
        try:
            reply: dict[str, Any] = {"value": await held.do(order.pop("order"), order)}
        except Exception as error:  # the check writes it down
            reply = {"error": f"{type(error).__name__}: {error}"}
        await asyncio.to_thread(connection.sendall, json.dumps(reply).encode() + b"\n")


def main() -> None:
    """The process. Its argument is the number of the socket's file descriptor."""
    number = int(sys.argv[1])
    os.set_inheritable(number, False)  # the engine's own processes must not keep it open
    with socket.socket(fileno=number) as connection:
        asyncio.run(serve(connection))


if __name__ == "__main__":
    main()
