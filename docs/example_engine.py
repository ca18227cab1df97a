"""An engine in 60 lines (engines.md): it answers with words of the conversation, drawn by the seed."""

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from actors.engine import NONE, Delta, Message
from configs.errors import ContextTooLong, EngineUnavailable
from configs.schema import Sampling

TOKEN_S = 0.001
WORDS = 600


class DiceEngine:
    """One word is one token, and each token takes a millisecond."""

    def __init__(self, name: str, context_tokens: int) -> None:
        self._name = name
        self._context_tokens = context_tokens
        self._stopped = asyncio.Event()
        self._stopped.set()
        self.calls_in_flight = 0

    async def start(self) -> None:
        self._stopped.clear()

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool = True,  # noqa: ARG002  # whether or not, it yields word by word
    ) -> AsyncGenerator[Delta]:
        await self.check_health()
        prompt_tokens = len(await self.token_ends(messages))
        room = self._context_tokens - prompt_tokens
        if room < 1:
            message = f"{prompt_tokens} tokens do not fit a context of {self._context_tokens}"
            raise ContextTooLong(message, model=self._name, param="messages")
        known = " ".join(message["content"] for message in messages).split() or ["nothing"]
        text = " ".join(random.Random(f"{sampling.seed} {known}").choices(known, k=WORDS))
        for stop in sampling.stop:
            text = text.split(stop)[0]
        words = re.findall(r"\s*\S+|\s+$", text)
        written = words[: min(sampling.answer_tokens, room)]
        self.calls_in_flight += 1
        try:
            for word in written:
                with suppress(TimeoutError):  # wait for the next token, or for the end of the engine
                    await asyncio.wait_for(self._stopped.wait(), TOKEN_S)
                await self.check_health()
                yield Delta(text=word, logprobs=_certain(word, sampling.top_logprobs))
            yield Delta(
                finish_reason="stop" if len(written) == len(words) else "length",
                prompt_tokens=prompt_tokens,
                completion_tokens=len(written),
            )
        finally:  # closing the generator ends the work, whoever closes it
            self.calls_in_flight -= 1

    async def token_ends(
        self,
        prompt: str | Sequence[Message],
        template: Mapping[str, Any] = NONE,  # noqa: ARG002
    ) -> list[int]:
        text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
        return [match.end() for match in re.finditer(r"\s*\S+|\s+$", text)]

    async def check_health(self) -> None:
        if self._stopped.is_set():
            raise EngineUnavailable("the dice engine is stopped", model=self._name)

    async def stop(self) -> None:
        self._stopped.set()


def _certain(word: str, most: int | None) -> tuple[dict[str, object], ...]:
    if most is None:
        return ()
    token = {"token": word, "logprob": 0.0, "bytes": list(word.encode())}
    return ({**token, "top_logprobs": [token][:most]},)
