"""The yardstick: a mixture of agents as one would write it by hand, with asyncio and aiohttp alone."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp

INSTRUCTIONS = "Synthesise these responses into one answer. Judge them critically."


class Handwritten:
    """Two proposers side by side, then an aggregator that streams; no limits, no error handling."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def answer(self, question: str) -> AsyncIterator[str]:
        """The aggregator's text as it comes."""
        user = {"role": "user", "content": question}
        proposals = await asyncio.gather(
            self._whole("proposer-a", [user], 64), self._whole("proposer-b", [user], 64)
        )
        references = "\n".join(f"{n}. {text}" for n, text in enumerate(proposals, 1))
        system = {"role": "system", "content": f"{INSTRUCTIONS}\n{references}"}
        async for text in self._stream("aggregator", [system, user], 128):
            yield text

    async def _whole(self, model: str, messages: list[dict[str, str]], tokens: int) -> str:
        return "".join([text async for text in self._stream(model, messages, tokens)])

    async def _stream(
        self, model: str, messages: list[dict[str, str]], tokens: int
    ) -> AsyncIterator[str]:
        body = {"model": model, "messages": messages, "stream": True, "max_tokens": tokens}
        url = f"{self._url}/{model}/v1/chat/completions"
        async with self._session.post(url, json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        if text := choice["delta"].get("content"):
                            yield text
