"""What one model is asked for: the call's sampling, and below it the model's own and its makers'."""

import asyncio
from typing import Any

from actors.weights.lookup import advised_here
from configs.errors import EngineError, UserError
from configs.extra_parameters import can_honour
from configs.schema import Model, Sampling


class SamplingOfModel:
    """Completes the samplings of calls to one model.

    The values that a call says come first, then those of the model's `sampling`. If either of the two
    says `checkpoint`, what the model's makers advise comes next. The engine fills what is still unsaid.
    """

    def __init__(self, name: str, model: Model) -> None:
        self._name = name
        self._model = model
        self._own = model.sampling.said
        self._advised: dict[str, Any] | None = None

    async def complete(self, sampling: Sampling) -> Sampling:
        """The sampling as the engine gets it.

        Raises:
            EngineError: the model's files cannot be read, or advise what cannot be.
        """
        if sampling.extra:
            # A fallback may have another engine than the model that was to answer.
            engine = self._model.engine
            known = {n: v for n, v in sampling.extra.items() if can_honour(engine, n, v)}
            sampling = sampling.model_copy(update={"extra": known})
        sampling = sampling.over(self._own)
        if "checkpoint" not in (sampling.base, self._model.sampling.base):
            return sampling
        if self._advised is None:
            try:
                self._advised = await asyncio.to_thread(advised_here, self._model) or {}
            except UserError as error:
                raise EngineError(str(error), model=self._name) from error
        return sampling.over(self._advised)
