"""Whether the ingress is alive, and whether the mixture can answer."""

import asyncio
from typing import Protocol

from fastapi.responses import JSONResponse

from actors.replica import ReplicaStats
from configs.errors import RequestError
from configs.schema import Recipe

READY_S = 2.0
"""Longest wait for a replica's counters, in seconds. A replica that is up answers within milliseconds.
An ingress that has just started may first have to wait for news of the replicas."""


class ModelStats(Protocol):
    """Models whose replicas can be asked for their counters."""

    async def stats(self, model: str) -> ReplicaStats:
        """The counters of one replica of the model.

        Raises:
            RequestError: no replica answers.
        """


class Health:
    """Answers `/healthz` and `/readyz`, by which load balancers and people watch this server."""

    def __init__(self, recipe: Recipe, models: ModelStats) -> None:
        self._recipe = recipe
        self._models = models

    async def healthz(self) -> dict[str, str]:
        """Whether the HTTP server is alive. The answer says nothing about the models."""
        return {"status": "ok"}

    async def readyz(self) -> JSONResponse:
        """Whether the mixture can answer now (200) or not (503), and the state of each model.

        The mixture can answer if both are true: the aggregator or one of its fallbacks is up, and the
        models of the first layer that are up write at least as many proposals as the quorum.
        """
        names = list(self._recipe.names)
        states = dict(zip(names, await asyncio.gather(*map(self._state, names)), strict=True))
        up = {model for model, state in states.items() if state == "ready"}
        first_layer = self._recipe.layers[0].samples_by_model()
        proposals = sum(first_layer[model] for model in up)
        can_answer = not up.isdisjoint(self._recipe.aggregators)
        ready = can_answer and proposals >= self._recipe.limits.quorum
        return JSONResponse({"ready": ready, "models": states}, status_code=200 if ready else 503)

    async def _state(self, model: str) -> str:
        """`ready`, or why the model is not ready."""
        try:
            async with asyncio.timeout(READY_S):
                await self._models.stats(model)
        except TimeoutError:
            return "not up"
        except RequestError as error:
            return error.message
        return "ready"
