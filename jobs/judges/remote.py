"""Who judges: one of the recipe's models, or a model behind any OpenAI-compatible server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from actors import engines
from actors.engine import Delta, Engine, Message, Share, collect_answer
from configs.schema import OpenAIHttpModel, Sampling
from jobs.identity import model_identity
from jobs.store import Store
from jobs.stored_calls import StoredCalls


@dataclass(frozen=True, slots=True)
class RemoteJudge:
    """A judge elsewhere. name: its name on that server; api_key_env: variable that holds the key."""

    name: str
    base_url: str
    api_key_env: str | None = None

    def model(self) -> OpenAIHttpModel:
        """As a model of a recipe; raises pydantic's ValidationError for a URL that is none."""
        return OpenAIHttpModel(
            engine="openai_http",
            base_url=self.base_url,
            model=self.name,
            api_key_env=self.api_key_env,
        )

    @property
    def identity(self) -> str:
        return model_identity(self.model())


@asynccontextmanager
async def remote_calls(judge: RemoteJudge, store: Store, in_flight: int) -> AsyncIterator[StoredCalls]:
    """Calls to a judge elsewhere, over a store.

    Raises:
        EngineUnavailable: its key is not there.
    """
    engine = engines.create(judge.name, judge.model(), Share())
    await engine.start()
    try:
        identities, room = {judge.name: judge.identity}, {judge.name: in_flight}
        async with StoredCalls(store, OneEngine(engine), identities, room) as calls:
            yield calls
    finally:
        await engine.stop()


class OneEngine:
    """`mixture.models.Models` of a single engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stream(
        self,
        model: str,  # noqa: ARG002
        messages: Sequence[Message],
        sampling: Sampling,
        _streamed: bool = True,
    ) -> AsyncIterator[Delta]:
        return cast("AsyncIterator[Delta]", self._engine.stream(messages, sampling))

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:  # noqa: ARG002
        return len(await self._engine.token_ends(messages))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:  # noqa: ARG002
        return [await self._engine.token_ends(text) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True
