"""The marks of one model's chat format: what becomes of messages and answers that have them."""

from collections.abc import Collection, Sequence

from actors.engine import Message
from actors.text.answer_reader import AnswerReader
from actors.text.control_tokens import Defuser
from actors.text.thinking import without_leading_thought
from actors.text.thinking_marks import Family
from configs.schema import Sampling


class ChatMarks:
    """The marks of one model.

    Args:
        families: how the model marks its reasoning; empty for a model that does not think.
        control: the texts of its control tokens.
        hidden: those of them that the engine leaves out of answers unless it is told to write them.
    """

    def __init__(
        self, families: Sequence[Family], control: Collection[str], hidden: Collection[str]
    ) -> None:
        self.families = tuple(families)
        self.control = frozenset(control)
        self._hidden = frozenset(hidden)
        self._defuser = Defuser(control)

    @property
    def family(self) -> Family | None:
        """How the model marks its reasoning; None for a model that does not think."""
        return self.families[0] if self.families else None

    @property
    def writes_control(self) -> bool:
        """Whether the engine has to write control tokens out, because they mark reasoning."""
        marks = [mark for family in self.families for mark in family.marks]
        return any(token in mark for token in self._hidden for mark in marks)

    def harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the model may read them: no control tokens, no thoughts of old answers."""
        return self._defuser.harmless(without_leading_thought(messages, self.families))

    def defuse(self, text: str) -> str:
        """A text with its control tokens made harmless."""
        return self._defuser.defuse(text)

    def reader(self, sampling: Sampling, prompt_end: str) -> AnswerReader:
        """The reader of one answer.

        Args:
            sampling: how the answer is sampled.
            prompt_end: the prompt, or the end of it, as the model reads the prompt.
        """
        family = self.family
        return AnswerReader(
            self.families,
            sampling,
            is_open=family is not None and family.opens(prompt_end),
            may_think=family is not None and not family.closes(prompt_end),
            hidden=self._hidden if self.writes_control else (),
            defuse=self.defuse,
        )
