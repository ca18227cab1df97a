"""One answer of llama.cpp's server: its chunks become deltas, with reasoning apart from text."""

from collections.abc import Sequence
from typing import Any

from actors.engine import Delta, FinishReason, merge
from actors.text.answer_reader import AnswerReader
from configs.schema import Sampling


class Answer:
    """Reads the chunks of one answer, which may take two calls.

    Args:
        reader: tells the answer's reasoning from its text.
        sampling: how the answer is sampled.
    """

    def __init__(self, reader: AnswerReader, sampling: Sampling) -> None:
        self._reader = reader
        self._sampling = sampling
        self._is_flushed = False
        self._prompt_tokens = 0
        """Tokens of the first call's prompt."""
        self._cached_tokens = 0
        """Those of them that were in the cache."""
        self._earlier = 0
        """Tokens that were written before this call."""
        self.has_ended = False
        """Whether nothing of this call is of use any more, so that the call can be ended."""

    def add(self, chunks: Sequence[dict[str, Any]]) -> Delta:
        """What the next chunks add to the answer."""
        deltas: list[Delta] = []
        for chunk in chunks:
            if not self.has_ended:
                deltas.append(self._delta(chunk))
        return merge(deltas or [Delta()])

    def end(self) -> Delta:
        """What was held back, at the end of the last call."""
        if self._is_flushed:
            return Delta()
        text, reasoning = self._reader.end()
        return Delta(text=text, reasoning=reasoning)

    def begin_second(self, closing_tokens: int) -> None:
        """Go on with the second call.

        Args:
            closing_tokens: the tokens of its prompt that close the thought.
        """
        self._reader.begin_second(closing_tokens)
        self._earlier = self._reader.written
        self.has_ended = False

    def _delta(self, chunk: dict[str, Any]) -> Delta:
        usage, timings = chunk.get("usage") or {}, chunk.get("timings") or {}
        choice = (chunk.get("choices") or [{}])[0]
        part = choice.get("delta") or {}
        finish: FinishReason | None = choice.get("finish_reason")
        written = usage.get("completion_tokens") or timings.get("predicted_n", 0)
        if self._is_flushed or self._reader.is_unanswered:  # only the counts are still to come
            self._reader.written = max(self._reader.written, self._earlier + written)
            return self._counts(usage, timings)
        read = self._reader.read(
            part.get("content") or choice.get("text") or "", self._earlier + written, finish
        )
        is_unanswered = self._reader.is_unanswered
        self._is_flushed = read.finish is not None
        if finish is None and (is_unanswered or read.finish is not None):
            self.has_ended = True
            usage = {"prompt_tokens": timings.get("prompt_n", 0) + timings.get("cache_n", 0)}
            usage["completion_tokens"] = written
        counts = self._counts(usage, timings)
        most = self._sampling.top_logprobs
        tokens = () if is_unanswered else (choice.get("logprobs") or {}).get("content") or ()
        return Delta(
            text=read.text,
            reasoning=read.reasoning,
            finish_reason=read.finish,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            cached_tokens=counts.cached_tokens,
            logprobs=tuple(t | {"top_logprobs": t["top_logprobs"][:most]} for t in tokens),
        )

    def _counts(self, usage: dict[str, Any], timings: dict[str, Any]) -> Delta:
        """The tokens of the whole answer, in a delta, if its last call tells them now."""
        if not usage:
            return Delta()
        if not self._prompt_tokens:  # those of the first call; a second call continues it
            self._prompt_tokens = usage.get("prompt_tokens", 0)
            self._cached_tokens = timings.get("cache_n", 0)
        if self._reader.is_unanswered:
            return Delta()
        written = self._earlier + usage.get("completion_tokens", 0)
        return Delta(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=written,
            cached_tokens=min(self._cached_tokens, self._prompt_tokens),
        )
