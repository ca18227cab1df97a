"""A judge behind any OpenAI-compatible server, instead of a model of the run's recipe."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from actors import engines
from actors.engine import NONE, Delta, Engine, Message, Share, collect_answer
from configs.schema import OpenAIHttpModel, Sampling
from jobs.identity import model_identity
from jobs.store import Store
from jobs.stored_calls import CallPatience, StoredCalls


@dataclass(frozen=True, slots=True)
class RemoteJudge:
    """A model on another server that judges."""

    name: str
    """The model's name on that server."""
    base_url: str
    """Address of the server's API, up to and with `/v1`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the API key; None if the server needs no key."""

    def model(self) -> OpenAIHttpModel:
        """The judge as a model of a recipe.

        Raises:
            ValidationError: pydantic does not accept the URL.
        """
        return OpenAIHttpModel(
            engine="openai_http",
            base_url=self.base_url,
            model=self.name,
            api_key_env=self.api_key_env,
        )

    @property
    def identity(self) -> str:
        """Hash of the server's address and the model's name there; see `identity.model_identity`."""
        return model_identity(self.model())


@asynccontextmanager
async def open_remote_calls(
    judge: RemoteJudge, store: Store, in_flight: int, say: Callable[[str], None]
) -> AsyncIterator[StoredCalls]:
    """Calls to a remote judge; the store keeps their results.

    A judge that is not there at the first call ends the job. Later, calls wait for it.

    Args:
        judge: The judge.
        store: Where the results of calls are kept.
        in_flight: How many calls may be under way at once.
        say: Gets a line for people while calls wait for the judge.

    Raises:
        EngineUnavailable: the environment variable for the API key is not set.
    """
    engine = engines.create(judge.name, judge.model(), Share())
    await engine.start()
    try:
        identities, capacity = {judge.name: judge.identity}, {judge.name: in_flight}
        patience = CallPatience(first_contact_s=0)  # the engine itself has tried again already
        async with StoredCalls(
            store, OneEngine(engine), identities, capacity, patience, say=say
        ) as calls:
            yield calls
    finally:
        await engine.stop()


class OneEngine:
    """An engine of this process behind the protocol `mixture.models.Models`.

    The engine answers under every model name.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stream(
        self,
        model: str,  # noqa: ARG002
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool = True,
    ) -> AsyncIterator[Delta]:
        return cast("AsyncIterator[Delta]", self._engine.stream(messages, sampling, streamed))

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling, False))

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return len(await self._engine.token_ends(messages, template))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:  # noqa: ARG002
        return [await self._engine.token_ends(text) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return True
