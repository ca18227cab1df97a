"""Reads one answer of a model that may think, and decides whether the answer takes a second call.

A model may end its message within its thought, or right behind it, and then there is no answer. It may
also think past its limit where the engine misses the marks. And an engine holds the first token of a
message to the form that the request demands, such as a JSON schema, so that a thought in the prompt
would be filled with the form's text. In all these cases the engine makes a second call: its prompt has
the thought, which is closed, and the model writes the answer behind it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from actors.engine import FinishReason
from actors.text.thinking import Splitter
from actors.text.thinking_marks import Family
from configs.schema import Sampling

LATE_TOKENS = 16
"""How many tokens a thought may be longer than its limit until it is ended by a second call: the
engine's own limit counts from the mark on, and the mark that ends a thought takes tokens too."""
BLANK = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""The characters of which a blank text consists, as Python's `str.strip` has them."""
NOT_BLANK = "[^" + "".join(f"\\u{ord(character):04X}" for character in BLANK) + "]"
"""The first character of a text that is not blank, for regular expressions and grammars."""

FORMS = frozenset({"structure", "tool_use"})
"""Parameters that hold an answer to a form."""


class Read(NamedTuple):
    """What a piece of an answer adds."""

    text: str
    """Text of the answer."""
    reasoning: str
    """Text of the thought."""
    finish: FinishReason | None
    """Why the answer has ended; None if it has not."""


class AnswerReader:
    """Tells the reasoning of one answer from its text, and holds the limits of both.

    The engine makes a second call once `is_unanswered` is true, which is so in these cases. The answer
    must have no text yet, and tokens must be left for it.

    1. The model has ended its message, and it has thought or `thinking_tokens` limits its thought.
    2. The thought is longer than its limit.
    3. The thought is over, or there is none, and the answer has to have a form (`is_form_later`).

    Args:
        families: the families whose marks count; without any, all is text.
        sampling: how the answer is sampled.
        is_open: whether the prompt ends within a thought.
        may_think: whether the model may begin a thought, or go on with one.
        hidden: control tokens that the engine writes out and that are no text.
        defuse: makes control tokens in a text harmless.
    """

    def __init__(
        self,
        families: Sequence[Family],
        sampling: Sampling,
        *,
        is_open: bool = False,
        may_think: bool = False,
        hidden: Iterable[str] = (),
        defuse: Callable[[str], str] = str,
    ) -> None:
        self._families = families
        self._hidden = tuple(hidden)
        self._splitter = Splitter(families, is_open=is_open, hidden=self._hidden)
        self._sampling = sampling
        self._is_bounded = sampling.thinking_tokens is not None and bool(families)
        self._is_open = self._has_thought = is_open
        self._defuse = defuse
        self._thought: list[str] = []
        self._thought_tokens = 0
        self._has_text = False
        self._is_second = not families
        self.may_think = may_think
        """Whether the model may begin a thought, or go on with one."""
        self.is_form_later = may_think and not FORMS.isdisjoint(sampling.extra)
        """Whether the first call must not be held to the form of the answer, because the model may
        think in that call."""
        self.is_unanswered = False
        """Whether the call that is read now is to be ended, and a second call to be made."""
        self.written = 0
        """How many tokens the model has written by now, and of those that closed a thought."""

    def read(self, text: str, written: int, finish: FinishReason | None) -> Read:
        """What the next piece adds.

        Args:
            text: the piece's text.
            written: how many tokens all calls of the answer have written by now. Numbers that are
                smaller than one before do not count.
            finish: why the engine ended its call; None if it has not. The answer also ends, with
                `length`, once it has all of its tokens. It does not end while `is_unanswered`.
        """
        self.written = max(self.written, written)
        shown, reasoning = self._splitter.feed(text)
        is_thinking = self._splitter.is_thinking
        self._has_thought = self._has_thought or self._splitter.is_within_thought or bool(reasoning)
        if not self._is_second and self._takes_second_call(finish):
            return Read("", self._note(reasoning + self._end_first()), None)
        self._has_text = self._has_text or not is_thinking
        if finish is None and self._has_all_tokens(is_thinking):
            finish = "length"
        if finish is not None:
            rest = self._splitter.end()
            shown, reasoning = shown + rest[0], reasoning + rest[1]
        return Read(shown, self._note(reasoning), finish)

    def end(self) -> tuple[str, str]:
        """The text and the thought that were held back, if the engine's call ends without a reason."""
        return self._splitter.end()

    @property
    def room(self) -> int:
        """How many tokens are left for an answer of which there is no text yet."""
        if self._is_bounded:
            return self._sampling.answer_tokens
        return self._sampling.most_tokens - self.written

    @property
    def closing(self) -> str:
        """The text that ends the thought by force."""
        return f"\n{self._families[0].closing}\n\n" if self._families else ""

    @property
    def before_answer(self) -> str:
        """The text between the prompt and the answer of the second call: the thought, closed."""
        if not self._has_thought:
            return ""
        begin = "" if self._is_open else self._families[0].begins[0]
        return begin + self._defuse("".join(self._thought).strip()) + self.closing

    def begin_second(self, closing_tokens: int) -> None:
        """Go on with the second call.

        Args:
            closing_tokens: the tokens of the prompt that close the thought. They count as written.
        """
        self.is_unanswered = False
        self.written += closing_tokens
        self._thought_tokens = self.written

    def _takes_second_call(self, finish: FinishReason | None) -> bool:
        if self._has_text or self.room <= 0:
            return False
        is_over = self._splitter.is_thinking is False or (
            self._has_thought and not self._splitter.is_within_thought
        )
        if self.is_form_later and (is_over or finish == "stop"):  # 3
            return True
        if not self._splitter.is_thinking:
            return False
        if finish == "stop":  # 1
            return self._has_thought or self._is_bounded
        return self._is_bounded and self._is_late(finish)  # 2

    def _is_late(self, finish: FinishReason | None) -> bool:
        limit = self._sampling.thinking_tokens or 0
        return self.written > limit + LATE_TOKENS or (
            finish == "length" and self.written >= self._sampling.most_tokens
        )

    def _end_first(self) -> str:
        """End the reading of the first call; return what was held back of the thought."""
        _, reasoning = self._splitter.end()
        self._splitter = Splitter(self._families, hidden=self._hidden)
        self.is_unanswered = self._is_second = True
        return reasoning

    def _note(self, reasoning: str) -> str:
        limit = self._sampling.thinking_tokens
        if limit is None or self.written <= limit + 1:  # the second prompt holds the limit too
            self._thought.append(reasoning)
        return reasoning

    def _has_all_tokens(self, is_thinking: bool) -> bool:
        """Whether the answer has all of its tokens, where it has a limit of its own."""
        if is_thinking:
            self._thought_tokens = self.written
            return False
        is_limited = self._sampling.thinking_tokens is not None
        return is_limited and self.written - self._thought_tokens >= self._sampling.answer_tokens
