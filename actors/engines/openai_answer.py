"""Collects one answer of an OpenAI-compatible server while the answer arrives."""

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.engine import CallDelta, Delta, FinishReason
from actors.engines.half_characters import Halves
from actors.engines.openai_calls import CallsOfServer
from actors.engines.openai_chunks import (
    NO_TEXT,
    Choice,
    Chunk,
    DeviantChunk,
    Text,
    Usage,
    read_count,
    read_logprobs,
)
from actors.engines.openai_errors import Fault, fault_of
from actors.engines.openai_finish import read_ending
from actors.engines.token_estimate import estimated_ends
from actors.text.thinking import Splitter

NOTHING = Delta()
"""What a chunk adds that says nothing."""


@dataclass(slots=True)
class StreamedAnswer:
    """Takes in the chunks of one answer, and says what each adds."""

    texts: list[str] = field(default_factory=list)
    """Reasoning and text in the order of their arrival. The engine estimates token counts from it."""
    usage: Usage | None = None
    """The server's latest token counts; None if it has sent none."""
    finish_reason: FinishReason | None = None
    ended: bool = False
    """Whether the server has marked the answer as complete."""
    is_complete: bool = False
    """Whether nothing more comes, not even token counts."""
    unread: bytes = b""
    """The first event that says nothing, as long as no other has come."""
    splitter: Splitter = field(default_factory=lambda: Splitter(()))
    """Tells reasoning from text where the server has not done so."""
    messages: int = 0
    """How many chunks had a `message` in place of a `delta`."""
    calls: CallsOfServer = field(default_factory=CallsOfServer)
    """The calls of tools."""
    refuses: bool = False
    """Whether the model refused to answer."""
    _halves: tuple[Halves, Halves] | None = None
    """Halves of characters in the text and in the reasoning; None if there were none."""

    @property
    def is_whole(self) -> bool:
        """Whether the answer came in one piece, which needs no mark of its end."""
        return self.messages == 1 and (len(self.texts) > 0 or self.calls.count > 0)

    def add(self, chunk: Chunk, data: bytes = b"") -> Delta:
        """Add a chunk, and return what the chunk adds to the answer, without token counts.

        Some servers send a growing count with each chunk. So only the last count matters, and
        `final_delta` returns it.

        Args:
            chunk: the chunk.
            data: the bytes from which it was read.

        Raises:
            Fault: the server says that the answer failed.
        """
        if chunk.usage is not None or chunk.x_groq is not None:
            self.usage = chunk.counts or self.usage
        if not chunk.choices:
            if not self.unread:
                self.unread = data
            return NOTHING
        choice = chunk.choices[0]
        part = choice.delta or self._in_place_of_delta(choice)
        text = part.content or ""
        reasoning = part.reasoning_content or part.reasoning or ""
        if not text and not reasoning:  # nearly all chunks have one of the two
            text, reasoning = self._rare(part)
        if self._halves is not None or type(chunk) is DeviantChunk:
            text, reasoning = self._joined(text, reasoning)
        if reasoning:
            self.texts.append(reasoning)
        if text:
            self.texts.append(text)
            text, thought = self.splitter.feed(text)
            reasoning += thought
        calls = self._calls_of(part)
        reason: FinishReason | None = None
        if choice.finish_reason:
            reason = self._ending(choice, choice.finish_reason)
            if reason is not None:
                rest, thought = self._rest()
                text, reasoning = text + rest, reasoning + thought
        logprobs = read_logprobs(choice.logprobs.content or []) if choice.logprobs else ()
        return Delta(text, reasoning, reason, logprobs=logprobs, tool_calls=calls)

    def _calls_of(self, part: Text) -> tuple[CallDelta, ...]:
        if part.tool_calls is None and part.function_call is None:
            return ()
        return self.calls.read(part.tool_calls, part.function_call)

    def _rare(self, part: Text) -> tuple[str, str]:
        """Text and reasoning of a piece that has them under rare names. Words with which the model
        refuses to answer are the answer's text."""
        self.refuses = self.refuses or bool(part.refusal)
        return part.refusal or "", part.thinking or part.reasoning_text or ""

    def _in_place_of_delta(self, choice: Choice) -> Text:
        """The text of a choice without a delta. Some servers repeat the whole answer at its end."""
        if choice.message is None:
            return Text(content=choice.text) if choice.text else NO_TEXT
        if self.texts and not self.messages:
            return NO_TEXT
        self.messages += 1
        return choice.message

    def _joined(self, text: str, reasoning: str) -> tuple[str, str]:
        if self._halves is None:
            self._halves = Halves(), Halves()
        texts, thoughts = self._halves
        if text:
            text = texts.join(text)
        if reasoning:
            reasoning = thoughts.join(reasoning)
        return text, reasoning

    def _ending(self, choice: Choice, said: str) -> FinishReason | None:
        ending = read_ending(said)
        if ending is None:
            return None
        if ending.status:
            fault = fault_of({"error": choice.error}) if choice.error else None
            raise fault or Fault(f"the answer ended with finish_reason {said[:80]!r}", ending.status)
        self.ended = True
        if self.finish_reason is not None:
            return None
        self.finish_reason = ending.reason
        if ending.reason == "stop" and self.calls.count:
            self.finish_reason = "tool_calls"
        elif ending.reason == "stop" and self.refuses:
            self.finish_reason = "content_filter"
        return self.finish_reason

    def _rest(self) -> tuple[str, str]:
        """What was held back, at the end of the answer."""
        text = thought = ""
        if self._halves is not None:
            text, thought = (halves.end() for halves in self._halves)
            if text:
                text, more = self.splitter.feed(text)
                thought += more
        rest, more = self.splitter.end()
        return text + rest, thought + more

    def final_delta(self, estimate_prompt: Callable[[], int], characters_per_token: float) -> Delta:
        """The last delta of the answer: token counts, and a finish reason if the server sent none.

        Counts that the server did not send, or that cannot be, are estimated, and so is a prompt count
        of 0.

        Args:
            estimate_prompt: returns an estimate of the prompt's tokens.
            characters_per_token: how the answer's tokens are estimated: see `estimated_ends`.
        """
        text, reasoning = self._rest()
        usage = self.usage or Usage()
        written = read_count(usage.completion_tokens)
        if written is None:
            written = len(estimated_ends("".join(self.texts), characters_per_token))
        reason: FinishReason | None = None
        if self.finish_reason is None:
            reason = "content_filter" if self.refuses else "stop"
            if self.calls.count:
                reason = "tool_calls"
        read = read_count(usage.prompt_tokens)
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=reason,
            prompt_tokens=read or estimate_prompt(),
            completion_tokens=written,
            cached_tokens=min(usage.cached_tokens, read or 0),
        )
