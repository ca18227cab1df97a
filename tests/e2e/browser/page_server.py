"""Servers for the tests of the page: the real API over scripted engines, in one process, no Ray.

Each recipe here has an endpoint of its own, at a free port of this machine, so that the pages of two
tests share nothing in the browser.

    python -m tests.e2e.browser.page_server            all of them; the command ends with its stdin

The command prints one line of JSON: the URL of each endpoint by name, and the API key of those that
need one. Besides the API, an endpoint answers these requests of tests:

    GET  /test/counts     the calls of all engines together: started, finished, failed, cancelled
    POST /test/keys       `{"valid": false}` makes its key invalid, `{"valid": true}` valid again
"""

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from actors.engine import Delta, Message
from actors.keeper.card_report import CardReport, MemberReport
from cluster.residency.state import State, TurnState
from configs.schema import Recipe, Sampling
from serve_app.access.api_keys import generate_key
from serve_app.http.api import create_api
from serve_app.http.listener import Listener
from tests.e2e.browser.page_texts import ANSWER, HOSTILE, PROPOSALS, WORDS
from tests.unit.serve_app.conftest import Scripted

GB = 1_000_000_000
CYCLE_S = 9.0
"""Seconds after which the made-up card does the same again."""
LONG = {"max_tokens": 90_000}
"""Sampling of proposers that may write as much as their script has."""
COUNTS = ("started", "finished", "failed", "cancelled", "in_flight")


def model(text: str | None = None, token_s: float = 0.01, **settings: Any) -> dict[str, Any]:
    """The settings of a scripted model."""
    fixed = {"engine": "scripted", "context_tokens": 100_000}
    return {**fixed, "text": text, "token_s": token_s, **settings}


def recipe(
    name: str, models: dict[str, dict[str, Any]], writer: dict[str, Any] | str, **settings: Any
) -> Recipe:
    """A recipe in which the models propose, each once, and another model or several aggregate.

    Args:
        name: name of the recipe.
        models: the proposers.
        writer: the model that aggregates, which is called `gemma-9b`.
        settings: further settings of the recipe.
    """
    fields = {
        "name": name,
        "models": {**models, "gemma-9b": model(writer) if isinstance(writer, str) else writer},
        "layers": [{"proposers": [{"model": each, "sampling": LONG} for each in models]}],
        "aggregator": {"model": "gemma-9b"},
    }
    return Recipe.model_validate(fields | settings)


LLAMA, QWEN, NEMOTRON = PROPOSALS
LATE = {"quorum": 2, "grace_s": 0.4, "keepalive_s": 1}
RECIPES: dict[str, Recipe] = {
    # Three columns grow, the third is late, and the answer follows.
    "growth": recipe(
        "growth",
        {
            "llama-70b": model(LLAMA, 0.008, first_token_s=0.4),
            "qwen-72b": model(QWEN, 0.012, first_token_s=0.6),  # it thinks meanwhile
            "nemotron": model(NEMOTRON, 0.1, first_token_s=0.1),
        },
        model(ANSWER, 0.004, first_token_s=0.2),
        limits=LATE,
    ),
    # The same, slowly, for pictures.
    "sky": recipe(
        "sky",
        {
            "llama-70b": model(LLAMA, 0.03, first_token_s=0.5),
            "qwen-72b": model(QWEN, 0.08, first_token_s=0.9),
            "nemotron": model(NEMOTRON, first_token_s=60),
        },
        model(ANSWER, 0.01, first_token_s=0.5),
        limits=LATE,
    ),
    # Nothing ends by itself: one proposal hangs, one never ends, one is slow.
    "endless": recipe(
        "endless",
        {
            "hangs": model(hang_share=1),
            "writes-on": model(tokens=20_000, token_s=0.01),
            "slow": model(LLAMA, 1.0),
        },
        ANSWER,
    ),
    "keys": recipe(
        "keys",
        {"llama-70b": model(LLAMA, 0.03), "qwen-72b": model(QWEN, 0.03)},
        model(ANSWER, 0.01),
        access={"reload_s": 0.001},
    ),
    "hostile": recipe(
        "hostile",
        {f"attack-{n}": model(text, 0) for n, text in enumerate(HOSTILE)},
        model("\n\n".join(HOSTILE[:4]), 0),
    ),
    "failing": recipe("failing", {"one": model(fail_share=1), "two": model(fail_share=1)}, ANSWER),
    # No aggregator answers: a proposal stands in.
    "standing-in": recipe("standing-in", {"llama-70b": model(LLAMA, 0.001)}, model(fail_share=1)),
    "limited": recipe(
        "limited",
        {"llama-70b": model("Short.", 0), "qwen-72b": model("Brief.", 0)},
        "Both.",
        access={"allowance": {"requests_per_minute": 1}},
    ),
    # Two of three proposals have the same number, and nobody waits for the third, which never ends.
    "agreeing": recipe(
        "agreeing",
        {
            "llama-70b": model("6 times 7 is 42.", 0.001),
            "qwen-72b": model("The answer is 42.", 0.001),
            "nemotron": model(hang_share=1),
        },
        ANSWER,
        aggregator={"model": "gemma-9b", "method": "vote", "answer": "number"},
        exit={"answer": "number", "agree": 2, "of_models": 2},
    ),
    # Six columns at 50 tokens a second.
    "six": recipe(
        "six",
        {f"model-{n}": model(WORDS, 0.02, first_token_s=0.05 * n) for n in range(1, 7)},
        model("Done.", 0),
    ),
    # Turns without waiting, for their number.
    "turns": recipe(
        "turns",
        {"llama-70b": model(LLAMA, 0, first_token_s=0), "qwen-72b": model(QWEN, 0, first_token_s=0)},
        model(ANSWER, 0, first_token_s=0),
    ),
}
"""The recipe of each endpoint."""
THINKS = ("growth", "qwen-72b")
"""The recipe and the model that writes a thought, and its text a while after."""
STILL = ("sky",)
"""Recipes whose card does not move: their third model is waking."""


def member(name: str, slot: str, state: State, waits_s: float = 0.0) -> MemberReport:
    """A made-up member of the card.

    Args:
        name: name of the model.
        slot: the slot that it shares with others, or its own name.
        state: what its engine is doing.
        waits_s: for how long its oldest call has waited.
    """
    is_open, shares = state is State.RESIDENT, slot != name
    return MemberReport(
        name=f"{name}/0",
        slot=slot,
        state=state,
        turn=TurnState.OPEN if is_open else TurnState.CLOSED,
        in_flight=1 if is_open else 0,
        waiting=0 if is_open else 2,
        oldest_wait_s=0.0 if is_open else waits_s,
        last_step_s=1.4,
        failure="",
        awake_bytes=round((44 if shares else 9) * GB),
        asleep_bytes=round(0.6 * GB) if shares else 0,
        orders={"start": 1, "wake": 3, "sleep": 3} if shares else {"start": 1},
        step_seconds={"resident": 4.2, "asleep": 1.1} if shares else {"resident": 12.0},
    )


def card(mixture: Recipe, at_s: float) -> CardReport:
    """A card on which the first and the third model take turns. The others are always awake.

    Args:
        mixture: the recipe whose models are on the card.
        at_s: seconds since the card began to move.
    """
    names = list(mixture.models)
    half_s, since_s = CYCLE_S / 2, at_s % (CYCLE_S / 2)
    awake = 0 if at_s % CYCLE_S < half_s or mixture.name in STILL else 2
    states = [State.RESIDENT] * len(names)
    if len(names) > 2:
        states[2 - awake] = State.ASLEEP
        states[awake] = State.WAKING if since_s < 1.5 else State.RESIDENT
    if mixture.name in STILL:
        states[0], states[2] = State.RESIDENT, State.WAKING
        since_s = 4.0
    members = (
        member(name, "turns" if n in (0, 2) else name, states[n], since_s)
        for n, name in enumerate(names)
    )
    return CardReport("node-1", (0,), "NVIDIA A100-SXM4-80GB", 85 * GB, tuple(members))


class Thinking(Scripted):
    """Scripted models, of which one begins with a thought (`THINKS`)."""

    def __init__(self, mixture: Recipe) -> None:
        super().__init__(mixture)
        self._name = mixture.name

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        answer = super().stream(model, messages, sampling, streamed)
        return _after_a_thought(answer) if (self._name, model) == THINKS else answer


async def _after_a_thought(answer: AsyncIterator[Delta]) -> AsyncGenerator[Delta]:
    async with aclosing(cast("AsyncGenerator[Delta]", answer)) as deltas:
        yield Delta(reasoning="A thought that nobody sees.")
        async for delta in deltas:
            yield delta


class Endpoint:
    """One recipe at its own port.

    Args:
        mixture: the recipe.
        folder: a folder for its file of keys.
        key: the API key that it needs; None if it needs none.
    """

    def __init__(self, mixture: Recipe, folder: Path, key: str | None = None) -> None:
        self._models = Thinking(mixture)
        self._key = key
        self._keys_file = folder / f"{mixture.name}.yaml"
        self._mixture = mixture
        self._names = list(mixture.models)
        self.url = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Endpoint"]:
        """Serve it."""
        began = time.monotonic()
        mixture = self._mixture
        if self._key is not None:
            self._set_valid(True)
            access = mixture.access.model_copy(update={"keys_file": str(self._keys_file)})
            mixture = mixture.model_copy(update={"access": access})

        async def watch() -> Sequence[CardReport]:
            return [card(mixture, time.monotonic() - began)]

        api = create_api(mixture, self._models, watch=watch)
        await self._models.start()
        listener = Listener(self._with_tests(api), "127.0.0.1", 0)
        await listener.start()
        self.url = f"http://127.0.0.1:{listener.port}"
        try:
            yield self
        finally:
            await listener.stop(0)
            await self._models.stop()

    def _set_valid(self, valid: bool) -> None:
        text = self._key if valid and self._key else generate_key()
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._keys_file.write_text(f"tester: sha256:{digest}\n")

    def _with_tests(self, api: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if path == "/test/counts":
                await JSONResponse(await self._counts())(scope, receive, send)
            elif path == "/test/keys":
                self._set_valid(json.loads((await receive())["body"])["valid"])
                await JSONResponse({})(scope, receive, send)
            else:
                await api(scope, receive, send)

        return app

    async def _counts(self) -> dict[str, int]:
        stats = [await self._models.stats(name) for name in self._names]
        return {count: sum(getattr(each, count) for each in stats) for count in COUNTS}


@asynccontextmanager
async def all_served(names: Sequence[str] = tuple(RECIPES)) -> AsyncIterator[dict[str, str]]:
    """Serve these recipes.

    Yields:
        The URL of each by its name, and the key of the recipe `keys` as `key`.
    """
    key = generate_key()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"key": key}
        for name in names:
            endpoint = Endpoint(RECIPES[name], folder, key if name == "keys" else None)
            urls[name] = (await stack.enter_async_context(endpoint.served())).url
        yield urls


async def main() -> None:
    """Serve all recipes until stdin ends."""
    async with all_served() as urls:
        print(json.dumps(urls), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
