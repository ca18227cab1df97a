"""Tells a model's reasoning from its answer, by the marks of the model's family.

Most of today's models think before they answer. Each family of models puts its own marks around a
thought (`thinking_marks.py`). llama.cpp, vLLM and remote servers are all read by this file.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from actors.engine import Message
from actors.text.thinking_marks import ANY, FAMILIES, QUOTES, Family


class _Marks:
    """A set of marks to look for in a growing text."""

    def __init__(self, marks: frozenset[str]) -> None:
        # The longest first: a mark may begin with another mark.
        self.all = sorted(marks, key=lambda mark: (-len(mark), mark))
        self._pattern = re.compile("|".join(map(re.escape, self.all)) if self.all else r"(?!)")
        self._prefixes = frozenset(m[:n] for m in self.all for n in range(1, len(m)))
        self._firsts = frozenset(mark[0] for mark in self.all)
        self._longest = max(map(len, self.all), default=0)

    def find(self, text: str, start: int = 0) -> re.Match[str] | None:
        """The first mark that begins at `start` or later."""
        return self._pattern.search(text, start)

    def at_start(self, text: str) -> str:
        """The mark with which the text begins; "" if there is none."""
        found = self._pattern.match(text)
        return found[0] if found else ""

    def are_absent(self, text: str) -> bool:
        """Whether no mark can begin in the text. False may be wrong."""
        return self._firsts.isdisjoint(text)

    def may_begin(self, text: str) -> bool:
        """Whether the text is the beginning of a mark, or empty."""
        return not text or text in self._prefixes

    def unfinished(self, text: str) -> int:
        """How many characters at the text's end may be the beginning of a mark."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-length:] in self._prefixes:
                return length
        return 0


@lru_cache(maxsize=64)
def _marks_of(marks: frozenset[str]) -> _Marks:
    """The marks, made ready once: every call of a model has the same."""
    return _Marks(marks)


STEP_CHARACTERS = 1024
"""Most characters of a piece that are taken in at a time: each mark that is found copies the rest."""
Step = Callable[[list[str], list[str], bool], bool]
"""Takes a part of what is held into texts or thoughts; returns whether there is more to do now."""


class Splitter:
    """Separates thoughts from text in one answer while the answer grows.

    A mark may be split over pieces: text that may be the beginning of a mark is held back. These rules
    hold, with the marks of `families`:

    1. A thought begins with a mark at the start of the answer, or at the start of what follows a
       thought. Anywhere else a mark begins a thought only in a family that repeats its thoughts.
    2. The family's end mark ends the thought, unless the mark stands in quotes.
    3. A thought that never ends is a thought all the same.
    4. Marks of the family's frame, and those of `hidden`, are left out.

    Args:
        families: the families whose marks count; without any, all is text.
        is_open: whether the prompt ends within a thought.
        hidden: further marks that are no text: the model's control tokens, where the engine writes them
            out.
    """

    def __init__(
        self, families: Sequence[Family], *, is_open: bool = False, hidden: Iterable[str] = ()
    ) -> None:
        self._by_begin = {begin: family for family in families for begin in family.begins}
        ends = [family.end for family in families]
        frames = [mark for family in families for mark in family.frame]
        self._hidden = frozenset(hidden)
        self._leading = _marks_of(self._hidden | {*self._by_begin, *frames, *ends})
        repeats = [f for f in families if f.is_repeated]
        marks = [mark for family in repeats for mark in (*family.begins, family.end)]
        self._within = _marks_of(self._hidden | {*marks, *frames})
        self._held = ""
        self._step: Step = self._start
        self._family: Family | None = None
        """The family of the thought that was begun last."""
        self._last = ""
        """The last character of the thought."""
        self._is_fresh = False
        """Whether nothing of the thought has come yet."""
        self._has_dropped = False
        """Whether a mark was left out before the text, so that the space behind the mark goes too."""
        if is_open and families:
            self._open(families[0])
        elif not self._leading.all:
            self._step = self._text

    @property
    def is_thinking(self) -> bool:
        """Whether the answer has not begun yet."""
        return self._step != self._text

    @property
    def is_within_thought(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._step == self._thought

    def feed(self, piece: str) -> tuple[str, str]:
        """Split the next piece of the answer into text and thought. Either may lag behind."""
        if not self._held and self._step == self._text and self._within.are_absent(piece):
            return piece, ""  # nearly all pieces of an answer
        texts: list[str] = []
        thoughts: list[str] = []
        for start in range(0, len(piece), STEP_CHARACTERS):
            self._held += piece[start : start + STEP_CHARACTERS]
            self._run(texts, thoughts)
        return "".join(texts), "".join(thoughts)

    def end(self) -> tuple[str, str]:
        """What was held back, as text and thought, at the end of the answer."""
        texts: list[str] = []
        thoughts: list[str] = []
        self._run(texts, thoughts, is_last=True)
        (thoughts if self._step == self._thought else texts).append(self._held)
        self._held = ""
        return "".join(texts), "".join(thoughts)

    def _run(self, texts: list[str], thoughts: list[str], *, is_last: bool = False) -> None:
        while self._step(texts, thoughts, is_last):
            pass

    def _start(self, _texts: list[str], _thoughts: list[str], is_last: bool) -> bool:
        """At the start of the answer, or behind a thought (1)."""
        text = self._held.lstrip()
        if self._leading.may_begin(text) and not is_last:
            return False
        if mark := self._leading.at_start(text):
            self._held = text[len(mark) :]
            self._has_dropped = True
            if mark in self._by_begin:
                self._open(self._by_begin[mark])
            return True
        if self._has_dropped:
            self._held = text
        self._step = self._text
        return bool(self._held)

    def _open(self, family: Family) -> None:
        self._family = family
        self._last = ""
        self._is_fresh = True
        self._step = self._thought

    def _thought(self, _texts: list[str], thoughts: list[str], is_last: bool) -> bool:
        """Within a thought (2, 3)."""
        assert self._family is not None
        ends = _marks_of(self._hidden | {self._family.end})
        if self._is_fresh:
            text, begins = self._held.lstrip(), self._family.begins
            begun = next((b for b in begins if text.startswith(b)), "")
            if not begun and any(b.startswith(text) for b in begins) and not is_last:
                return False  # nothing yet, or the mark once more behind the prompt's
            self._held, self._is_fresh = text[len(begun) :].lstrip(), bool(begun)
            if self._is_fresh:
                return True
        at = 0
        while found := ends.find(self._held, at):
            if found[0] != self._family.end:  # 4
                self._held = self._held[: found.start()] + self._held[found.end() :]
                at = found.start()
                continue
            before = self._held[: found.start()][-1:] or self._last
            if before and before in QUOTES:
                if found.end() == len(self._held) and not is_last:
                    self._pass(thoughts, found.start())
                    return False  # the next character decides
                if self._held[found.end() :][:1] == before:
                    at = found.end()
                    continue
            self._pass(thoughts, found.start())
            self._held = self._held[len(found[0]) :]
            self._has_dropped = True
            self._step = self._start
            return True
        rest = 0 if is_last else ends.unfinished(self._held)
        self._pass(thoughts, len(self._held) - rest)
        return False

    def _pass(self, thoughts: list[str], count: int) -> None:
        """Give the first characters of what is held as a thought."""
        if count:
            thoughts.append(self._held[:count])
            self._last = self._held[count - 1]
            self._held = self._held[count:]

    def _text(self, texts: list[str], _thoughts: list[str], is_last: bool) -> bool:
        """Within the answer (1, 4)."""
        found = self._within.find(self._held)
        if found is None:
            rest = 0 if is_last else self._within.unfinished(self._held)
            texts.append(self._held[: len(self._held) - rest])
            self._held = self._held[len(self._held) - rest :]
            return False
        texts.append(self._held[: found.start()])
        self._held = self._held[found.start() :]
        if self._within.may_begin(self._held) and not is_last:
            return False  # a longer mark may follow
        self._held = self._held[len(found[0]) :]
        if found[0] in self._by_begin:
            self._open(self._by_begin[found[0]])
        return True


def split(text: str, families: Sequence[Family], *, is_open: bool = False) -> tuple[str, str]:
    """A whole answer as text and thought."""
    splitter = Splitter(families, is_open=is_open)
    begun, ended = splitter.feed(text), splitter.end()
    return begun[0] + ended[0], begun[1] + ended[1]


def without_leading_thought(
    messages: Sequence[Message], families: Sequence[Family]
) -> Sequence[Message]:
    """The messages without the thoughts with which earlier answers begin.

    Chat templates leave such thoughts out as well, but only while the marks of the thoughts are whole.
    """
    if not families:
        return messages
    marks = tuple(begin for family in families for begin in family.begins)

    def shown(message: Message) -> Message:
        content = message["content"]
        if message["role"] != "assistant" or not content.lstrip().startswith(marks):
            return message
        return Message(role="assistant", content=split(content, families)[0])

    return [shown(message) for message in messages]


_TAGS = [family for family in FAMILIES if not family.is_repeated and not family.is_prose]
_BEGIN = {begin.lower() for family in _TAGS for begin in family.begins}
_ANY = "|".join(re.escape(m) for f in _TAGS for m in (*f.begins, f.end))
TAG = re.compile(f"([{QUOTES}]?)({_ANY})([{QUOTES}]?)", re.IGNORECASE)
"""A mark of a family, with a quote on either side if there is one."""


def without_reasoning(text: str) -> str:
    """The text without its thoughts, whichever family wrote the text.

    Engines separate thoughts while a text grows, as far as their marks can be told then. This function
    sees the whole text, and so also finds what these rules name:

    1. Thoughts as `Splitter` finds them.
    2. A mark within the text begins a block, and the next end mark ends the block.
    3. A mark after a quote is a mention: it begins no block. It ends no block either if a quote of the
       same kind follows it. An end mark outside a block is a mention as well if a beginning was
       mentioned before.
    4. Any other end mark outside a block removes all text before it, since some chat templates begin
       the thought in the prompt.
    5. A block that never ends removes all text after its beginning if that begins a line. Within a line
       the mark is a mention and stays.
    """
    text, _ = split(text, ANY)  # 1
    kept: list[str] = []
    at, opened = 0, -1  # where the text to keep begins; where the open block begins, -1 if none is open
    mentioned = False
    for tag in TAG.finditer(text):
        before, mark, after = tag.groups()
        begins = mark.lower() in _BEGIN
        if opened >= 0:
            if not begins and not (before and before == after):  # 2: the end
                at, opened = tag.end(2), -1
        elif before:  # 3
            mentioned = mentioned or begins
        elif begins:  # 2: the beginning
            kept.append(text[at : tag.start(2)])
            opened = tag.start(2)
        elif not mentioned:  # 4
            kept.clear()
            at = tag.end(2)
    if opened < 0:
        kept.append(text[at:])
    elif text[:opened].rpartition("\n")[2].strip():  # 5: within a line
        kept.append(text[opened:])
    return "".join(kept).strip()
