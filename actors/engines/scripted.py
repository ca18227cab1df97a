"""A deterministic engine without weights: text, latency and faults come from the recipe.

It serves demonstrations, load tests and fault tests.
"""

import asyncio
import itertools
import json
import os
import random
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.engine import NONE, PIECE_S, Delta, Message, Share
from configs.errors import ContextTooLong, EngineError, EngineUnavailable
from configs.schema import Sampling, ScriptedModel

WORDS = (  # noqa: SIM905  # reads better than 29 quoted words
    "the a river stone light moves under old bright quiet green city people carry many small "
    "questions toward evening because water finds its own level and nobody asked why"
).split()
"""Words of answers that the engine makes up."""


def create(name: str, model: ScriptedModel, share: Share) -> "ScriptedEngine":  # noqa: ARG001
    """Create the engine without starting it."""
    return ScriptedEngine(name, model)


class ScriptedEngine:
    """Answers with the recipe's text, or else with words drawn from `WORDS`. One word is one token.

    Besides the recipe's shares of faults, only the model's name and the number of earlier calls decide
    whether a call fails or hangs. So every run with the same calls has the same faults.
    """

    def __init__(self, name: str, model: ScriptedModel) -> None:
        self._name = name
        self._model = model
        self._calls = 0
        self._warmed = ""
        """The beginning of a prompt that the last complete warm-up has read."""
        self._stopped = asyncio.Event()
        self._stopped.set()

    async def start(self) -> None:
        await asyncio.sleep(self._model.start_s)
        self._stopped.clear()

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        await self.check_health()
        prompt_tokens = len(await self.token_ends(messages))
        free_tokens = self._model.context_tokens - prompt_tokens
        if free_tokens < 1:
            message = f"{prompt_tokens} tokens do not fit a context of {self._model.context_tokens}"
            raise ContextTooLong(message, model=self._name, param="messages")
        sampling = sampling.filled()
        self._write_journal(messages, sampling)
        await self._inject_fault()
        cached_tokens = self._cached(messages)
        first_token_s = self._first_s(prompt_tokens, cached_tokens)
        words = self._words(messages, sampling)
        written = words[: min(sampling.answer_tokens, free_tokens)]
        for n, piece in enumerate(self._pieces(written, streamed)):
            first_s = self._model.token_s if n else first_token_s
            await self._pause(first_s + (len(piece) - 1) * self._model.token_s)
            logprobs = [logprob for word in piece for logprob in _logprobs(word, sampling)]
            yield Delta(text="".join(piece), logprobs=tuple(logprobs))
        yield Delta(
            finish_reason="length" if len(written) < len(words) else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(written),
            cached_tokens=cached_tokens,
        )

    @property
    def can_warm(self) -> bool:
        return True

    async def warm(self, messages: Sequence[Message], template: Mapping[str, Any] = NONE) -> int:
        """See `Warmer`. The whole time to the first token is the time to read the prompt, and each
        token of the prompt takes an equal share. If a warm-up is cancelled, nothing of it is kept."""
        read = len(await self.token_ends(messages, template))
        cached = self._cached(messages)
        await self._pause(self._first_s(read, cached))
        self._warmed = _render(messages)
        return read - cached

    def _cached(self, messages: Sequence[Message]) -> int:
        """How many tokens at the beginning of a prompt the last warm-up has read."""
        warmed, asked = _words_of(self._warmed), _words_of(_render(messages))
        pairs = enumerate(zip(warmed, asked, strict=False))
        return next((n for n, (one, other) in pairs if one != other), min(len(warmed), len(asked)))

    def _first_s(self, prompt_tokens: int, cached_tokens: int) -> float:
        return self._model.first_token_s * (1 - cached_tokens / max(1, prompt_tokens))

    def _pieces(self, words: Sequence[str], streamed: bool) -> Iterator[Sequence[str]]:
        """The words of each delta: one, or after the first as many as are written within PIECE_S."""
        token_s = self._model.token_s
        size = 1 if streamed else max(1, int(PIECE_S / token_s)) if token_s else len(words)
        if words:
            yield words[:1]
        for start in range(1, len(words), size):
            yield words[start : start + size]

    def _write_journal(self, messages: Sequence[Message], sampling: Sampling) -> None:
        """Append the call to the recipe's journal file, if the recipe names one."""
        if self._model.journal is not None:
            call = {
                "model": self._name,
                "messages": list(messages),
                "sampling": sampling.model_dump(mode="json"),
                "pid": os.getpid(),
            }
            with Path(self._model.journal).open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(call) + "\n")

    async def _inject_fault(self) -> None:
        """Fail or hang if this call draws one of the recipe's faults."""
        self._calls += 1
        draw = random.Random(f"{self._name}/{self._calls}").random()
        if draw < self._model.fail_share:
            raise EngineError("the script says that this call fails", model=self._name)
        if draw < self._model.fail_share + self._model.hang_share:
            await self._pause(None)

    async def _pause(self, seconds: float | None) -> None:
        """Wait for `seconds`, forever if None.

        Raises:
            EngineUnavailable: the engine was stopped meanwhile.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        await self.check_health()

    async def token_ends(
        self,
        prompt: str | Sequence[Message],
        template: Mapping[str, Any] = NONE,  # noqa: ARG002
    ) -> list[int]:
        text = prompt if isinstance(prompt, str) else _render(prompt)
        return list(itertools.accumulate(map(len, _words_of(text))))

    async def check_health(self) -> None:
        if self._stopped.is_set():
            raise EngineUnavailable("the scripted engine is stopped", model=self._name)

    async def stop(self) -> None:
        self._stopped.set()

    def _words(self, messages: Sequence[Message], sampling: Sampling) -> list[str]:
        """The words of the whole answer, each with the white space before it."""
        if self._model.text is not None:
            text = self._model.text
            for last in messages[-1:]:
                if last["role"] == "assistant":  # a text that this message begins goes on behind it
                    text = text.removeprefix(last["content"])
        else:
            draw = random.Random(f"{self._name}/{sampling.seed}/{_render(messages)}")
            text = " ".join(draw.choices(WORDS, k=self._model.tokens))
        for stop in sampling.stop:
            text = text.split(stop)[0]
        return _words_of(text)


def _words_of(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def _render(messages: Sequence[Message]) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _logprobs(word: str, sampling: Sampling) -> tuple[dict[str, object], ...]:
    """Log-probabilities of one word in OpenAI's format: every word has probability 1."""
    if sampling.top_logprobs is None:
        return ()
    token = {"token": word, "logprob": 0.0, "bytes": list(word.encode())}
    return ({**token, "top_logprobs": [token][: sampling.top_logprobs]},)
