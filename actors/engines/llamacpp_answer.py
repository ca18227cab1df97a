"""One answer of llama.cpp's server: its chunks become deltas, with reasoning apart from text."""

from collections.abc import Sequence
from typing import Any

from actors.engine import Delta, FinishReason, merge
from actors.text.thinking import AnswerLimit, Splitter
from configs.schema import Sampling


class Answer:
    """Reads the chunks of one call.

    Args:
        splitter: tells the answer's reasoning from its text.
        sampling: how the answer is sampled.
    """

    def __init__(self, splitter: Splitter, sampling: Sampling) -> None:
        self._splitter = splitter
        self._sampling = sampling
        self._limit = AnswerLimit(None if sampling.thinking_tokens is None else sampling.answer_tokens)
        self._is_flushed = False
        self.has_ended = False
        """Whether the answer has all of its tokens, so that the call can be ended."""

    def add(self, chunks: Sequence[dict[str, Any]]) -> Delta:
        """What the next chunks add to the answer."""
        deltas: list[Delta] = []
        for chunk in chunks:
            if not self.has_ended:
                deltas.append(self._delta(chunk))
        return merge(deltas or [Delta()])

    def end(self) -> Delta:
        """What was held back, at the end of the call."""
        text, reasoning = self._flush()
        return Delta(text=text, reasoning=reasoning)

    def _flush(self) -> tuple[str, str]:
        if self._is_flushed:
            return "", ""
        self._is_flushed = True
        return self._splitter.end()

    def _delta(self, chunk: dict[str, Any]) -> Delta:
        usage = chunk.get("usage") or {}
        choice = (chunk.get("choices") or [{}])[0]
        part = choice.get("delta") or {}
        text, reasoning = self._splitter.feed(part.get("content") or choice.get("text") or "")
        finish: FinishReason | None = choice.get("finish_reason")
        prompt_tokens = usage.get("prompt_tokens", 0)
        completion_tokens = usage.get("completion_tokens", 0)
        timings = chunk.get("timings") or {}
        written = timings.get("predicted_n", 0)
        if finish is None and self._limit.is_reached(written, is_thinking=self._splitter.is_thinking):
            self.has_ended, finish = True, "length"
            prompt_tokens = timings.get("prompt_n", 0) + timings.get("cache_n", 0)
            completion_tokens = written
        if finish is not None:
            rest = self._flush()
            text, reasoning = text + rest[0], reasoning + rest[1]
        most = self._sampling.top_logprobs
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=finish,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            logprobs=tuple(
                token | {"top_logprobs": token["top_logprobs"][:most]}
                for token in (choice.get("logprobs") or {}).get("content") or ()
            ),
        )
