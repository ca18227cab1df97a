"""The part of a check that serves a mixture in turns through Ray and HTTP, and kills a replica."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Any

import aiohttp
import psutil

from benchmarks.real_cards.measure import LEFT, TOLERANCE
from benchmarks.real_cards.meters import Peak, seconds_until
from benchmarks.real_cards.parts import BRIEF_S, WARM_START_S, Bench
from benchmarks.real_cards.planned import Mixture, plan_mixture
from benchmarks.real_cards.steps import Notes, Part, Step
from benchmarks.shared.harness import HOST, free_port
from cluster import ray_runtime

QUESTIONS = 8
"""Questions that are asked at once."""
RAY_S = 25.0
"""Expected seconds until Ray and Serve run."""
AGAIN_S = 0.2
"""Seconds before a question is asked again that was refused or lost."""
REPLICA = f"ray::ServeReplica:{ray_runtime.APP_NAME}:model-"
"""How the title of a replica's process begins; the model's name follows."""


class Refused(Exception):
    """The endpoint did not answer a question."""


class Served(Part):
    """A mixture in turns, as a user has it: one question, several at once, and a replica killed."""

    name = "mixture"

    def __init__(self, bench: Bench, wanted: dict[str, str]) -> None:
        self._bench = bench
        self._wanted = wanted
        self._mixture: Mixture | None = None
        self._url = ""
        self._thread = LastingThread()
        self._is_connected = False
        self._alone_s = 0.0
        self._empty = 0

    def steps(self) -> Sequence[Step]:
        start = RAY_S + len(self._wanted) * self._bench.expected(WARM_START_S)
        return (
            Step("plan", self._plan, 1),
            Step("serve", self._serve, start, after=("plan",)),
            Step("one question", self._one, 2 * BRIEF_S, after=("serve",)),
            Step("several at once", self._several, 3 * BRIEF_S, after=("one question",)),
            Step("kill -9 of the awake replica", self._kill, 3 * BRIEF_S, after=("one question",)),
            Step("shut down", self._end, BRIEF_S, after=("serve",)),
        )

    async def close(self) -> None:
        if self._is_connected:
            await self._disconnect()

    async def _plan(self, notes: Notes) -> None:
        self._mixture = mixture = plan_mixture(self._bench.machine, self._wanted)
        count = mixture.placement.longest_turns
        notes.add("models that take turns", count, planned=len(self._wanted), good=count > 1)

    async def _serve(self, notes: Notes) -> None:
        assert self._mixture is not None
        recipe, port = self._mixture.recipe, free_port()
        self._empty = self._bench.meter.used_bytes()
        began = _now()

        def deploy() -> None:
            ray_runtime.connect(None, verbose=False)
            # Not before `connect`: Ray reads its settings when it is imported.
            from serve_app.app import BuildArgs, build

            application = build(BuildArgs(recipe=recipe, follow_nodes=False, host=HOST, port=port))
            ray_runtime.deploy(application, ray_runtime.APP_NAME)

        self._is_connected = True
        async with Peak(self._bench.meter) as peak:
            await self._thread.run(deploy)
        self._url = f"http://{HOST}:{port}/v1/chat/completions"
        notes.add("seconds until all models have started", _now() - began, "s")
        self._note_peak(notes, peak.bytes)

    def _note_peak(self, notes: Notes, peak: int) -> None:
        """On a card, nothing may ever take more than the plan; on a CPU the bytes are also Ray's."""
        assert self._mixture is not None
        planned, taken = self._mixture.used_bytes, peak - self._empty
        good = taken <= planned * TOLERANCE if self._bench.machine.card.kind == "gpu" else None
        notes.add("peak of all bytes", taken, "bytes", planned=planned, good=good)

    async def _one(self, notes: Notes) -> None:
        began = _now()
        whole = await self._ask("What is a river?")
        self._alone_s = _now() - began
        note = "" if whole else "a proposal is missing"
        notes.add("seconds", self._alone_s, "s", good=whole, note=note)

    async def _several(self, notes: Notes) -> None:
        began = _now()
        async with Peak(self._bench.meter) as peak:
            whole = await asyncio.gather(
                *[self._ask(f"Question {number}: what is a river?") for number in range(QUESTIONS)]
            )
        seconds, bound = _now() - began, QUESTIONS * self._alone_s
        notes.add("whole answers", sum(whole), planned=QUESTIONS, good=all(whole))
        good = seconds < bound if self._bench.machine.card.kind == "gpu" else None
        notes.add("seconds", seconds, "s", planned=bound, good=good)
        self._note_peak(notes, peak.bytes)

    async def _kill(self, notes: Notes) -> None:
        """Kill the replica that writes an answer just now, and ask on until there are answers again."""
        model = next(iter(self._wanted))
        replica = await self._awake_replica(model)
        began = _now()
        replica.kill()
        async with Peak(self._bench.meter) as peak:
            whole = await self._ask_until_answered("What is a lake?")
            notes.add(
                "seconds until the next answer", _now() - began, "s", note="" if whole else "degraded"
            )
            while not whole:
                whole = await self._ask_until_answered("What is a sea?")
            notes.add("seconds until an answer of all models", _now() - began, "s")
        self._note_peak(notes, peak.bytes)

    async def _awake_replica(self, model: str) -> psutil.Process:
        """The process of a model's replica, once the model has written the first text of an answer."""
        async with aclosing(_texts(self._url, model, "Tell me a long story.")) as texts:
            async for _ in texts:
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        title = " ".join(process.cmdline()).strip()
                        if f"{title}.".startswith(f"{REPLICA}{model}."):  # Ray adds a method
                            return process
                raise Refused(f"no process of a replica of {model} was found")
        raise Refused(f"{model} wrote no text")

    async def _ask_until_answered(self, question: str) -> bool:
        while True:
            with suppress(Refused, aiohttp.ClientError):
                return await self._ask(question)
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, question: str) -> bool:
        """Ask the mixture; return whether no proposal is missing from its answer."""
        assert self._mixture is not None
        recipe = self._mixture.recipe
        timeout = aiohttp.ClientTimeout(total=recipe.limits.deadline_s)
        body = {"model": recipe.name, "messages": [{"role": "user", "content": question}]}
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self._url, json=body) as response,
        ):
            text = await response.text()
            if response.status != 200:
                raise Refused(f"HTTP {response.status}: {text}")
        return json.loads(text)["moa"]["degraded"] is False

    async def _end(self, notes: Notes) -> None:
        began = _now()
        await self._disconnect()
        notes.add("seconds", _now() - began, "s")
        seconds = await seconds_until(self._bench.meter, self._empty + LEFT)
        good = seconds is not None
        notes.add("seconds until all memory was back", seconds, "s", good=good)

    async def _disconnect(self) -> None:
        self._is_connected = False
        await self._thread.run(lambda: ray_runtime.disconnect(ray_runtime.APP_NAME, local=True))


async def _texts(url: str, model: str, question: str) -> Any:
    """The pieces of text of one model's answer, as they come."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        if response.status != 200:
            raise Refused(f"HTTP {response.status}: {await response.text()}")
        async for line in response.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    if text := choice["delta"].get("content"):
                        yield text


class LastingThread:
    """A thread that runs one piece of work after the other, and never ends before the process.

    Ray's processes end with the thread that started them (PR_SET_PDEATHSIG). And the end of this
    process must not wait for a call of Ray that hangs, as it would for the thread of a pool.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="ray").start()

    def _run(self) -> None:
        while True:
            self._work.get()()

    async def run(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread and wait for its end. Raises what `work` raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():  # nobody waits any longer
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def task() -> None:
            raised: BaseException | None = None
            try:
                work()
            except BaseException as error:  # whatever it is, the waiter has to know
                raised = error
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, raised)

        self._work.put(task)
        await done


def _now() -> float:
    return asyncio.get_running_loop().time()
