"""What vLLM is told of a chat: harmless messages, arguments of the template, limits of reasoning.

Imports no vLLM.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engine import Delta, FinishReason, Message
from actors.text.answer_reader import NOT_BLANK, AnswerReader
from actors.text.chat_marks import ChatMarks
from actors.text.control_tokens import from_folder
from actors.text.thinking_marks import families_of
from configs.schema import Sampling, VllmModel

TAIL_TOKENS = 24
"""How many of a prompt's last tokens are looked at to find out whether the prompt begins a thought."""
WITH_TEXT = {"regex": NOT_BLANK + r"[\s\S]*"}
"""The form of a text that does not begin with a blank, and so is not blank."""
FORM = "structured_outputs"
"""vLLM's argument for the form that an answer is held to."""


class Chat:
    """The chat format of one model.

    Args:
        model: the model's settings.
        folder: the model's checkpoint.
    """

    def __init__(self, model: VllmModel, folder: Path) -> None:
        self._model = model
        control, template = from_folder(folder)
        self._marks = ChatMarks(families_of(model.reasoning_format, template), control, control)

    def note_tokenizer(self, tokenizer: Any) -> None:
        """Take in the control tokens that vLLM's tokenizer names beyond those of the folder's files."""
        control = self._marks.control | {str(token) for token in _special(tokenizer)}
        self._marks = ChatMarks(self._marks.families, control, control)

    @property
    def reasoning_config(self) -> dict[str, str] | None:
        """Arguments of vLLM's `ReasoningConfig`; None for a model that does not think."""
        if (family := self._marks.family) is None:
            return None
        return {"reasoning_start_str": family.begins[0], "reasoning_end_str": family.closing}

    def harmless(self, messages: Sequence[Message]) -> list[Message]:
        """The messages as the model may read them: no control tokens, no thoughts of old answers."""
        return self._marks.harmless(messages)

    def defuse(self, text: str) -> str:
        """A text with its control tokens made harmless."""
        return self._marks.defuse(text)

    def arguments(self, template: Mapping[str, Any], turns: Sequence[Message]) -> dict[str, Any]:
        """Arguments of the chat template; those of `template` win over those of the model. If the last
        turn is the assistant's, the answer continues that turn."""
        arguments = {**self._model.template, **template, "add_generation_prompt": True}
        if turns and turns[-1]["role"] == "assistant":
            arguments |= {"add_generation_prompt": False, "continue_final_message": True}
        return arguments

    def sampling_arguments(self, sampling: Sampling) -> dict[str, Any]:
        """Keyword arguments of `vllm.SamplingParams` that are about reasoning."""
        arguments: dict[str, Any] = {"max_tokens": sampling.most_tokens}
        if self._marks.families:
            if sampling.thinking_tokens is not None:
                arguments["thinking_token_budget"] = sampling.thinking_tokens
            if self._marks.writes_control:
                arguments["skip_special_tokens"] = False
        return arguments

    def answer(self, tokenizer: Any, prompt: Any, sampling: Sampling) -> "Answer":
        """The reader of one answer.

        Args:
            tokenizer: vLLM's tokenizer of the model.
            prompt: the rendered prompt, which has `prompt_token_ids`.
            sampling: how the answer is sampled.
        """
        family = self._marks.family
        if family is None:
            return Answer(AnswerReader((), sampling), (), [])
        tokens = list(prompt["prompt_token_ids"])
        tail = tokenizer.decode(tokens[-TAIL_TOKENS:], skip_special_tokens=False)
        # Where a family ends a thought by more than its end mark, that mark may end the answer too.
        marks = family.begins if family.close else (*family.begins, family.end)
        return Answer(self._marks.reader(sampling, tail), marks, tokens)


class Answer:
    """Reads the calls of one answer: tells reasoning from text, and counts the answer's tokens.

    Args:
        reader: tells reasoning from text.
        marks: the marks of thoughts, which the answer behind a thought must not have.
        prompt: the tokens of the prompt.
    """

    def __init__(self, reader: AnswerReader, marks: Sequence[str], prompt: Sequence[int]) -> None:
        self._reader = reader
        self._marks = marks
        self._prompt = prompt
        self._written = 0

    @property
    def is_unanswered(self) -> bool:
        """Whether the engine has to end its call and ask for the answer with `second_call`."""
        return self._reader.is_unanswered

    def add(self, text: str, tokens: int, finish: FinishReason | None) -> Delta:
        """What vLLM's next output adds, with the tokens of the whole answer if it ends here.

        Args:
            text: the output's text.
            tokens: how many tokens the output has.
            finish: why vLLM ended its call; None if it has not. The delta also ends the answer, with
                `length`, once the answer has all of its tokens. It does not end an answer that is
                `is_unanswered`.
        """
        self._written += tokens
        read = self._reader.read(text, self._written, finish)
        written = self._written if read.finish else 0
        return Delta(read.text, read.reasoning, finish_reason=read.finish, completion_tokens=written)

    def first_call(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the first call: without the form of the answer while the model may think.

        Args:
            arguments: all arguments of `vllm.SamplingParams`.
        """
        is_left_out = self._reader.is_form_later
        return {n: value for n, value in arguments.items() if not (is_left_out and n == FORM)}

    def second_call(
        self, tokenizer: Any, arguments: Mapping[str, Any]
    ) -> tuple[list[int], dict[str, Any]]:
        """The prompt and the arguments with which the model answers behind its thought.

        The answer does not begin with a blank, unless it has a form of its own, and has no mark of
        a thought.

        Args:
            tokenizer: vLLM's tokenizer of the model.
            arguments: all arguments of `vllm.SamplingParams`.
        """
        reader = self._reader
        thought = tokenizer.encode(reader.before_answer, add_special_tokens=False)
        mark = tokenizer.encode(reader.closing, add_special_tokens=False) if thought else []
        most = reader.room
        reader.begin_second(len(mark))
        self._written = reader.written
        least = min(max(1, arguments.get("min_tokens", 0)), most)  # the message must not end at once
        answer = {"thinking_token_budget": None, "max_tokens": most, "min_tokens": least}
        answer |= {"bad_words": [*arguments.get("bad_words", ()), *self._marks]}
        return [*self._prompt, *thought], {FORM: WITH_TEXT, **arguments, **answer}


def _special(tokenizer: Any) -> Iterable[Any]:
    """The control tokens that a tokenizer of Hugging Face names."""
    yield from getattr(tokenizer, "all_special_tokens", None) or ()
    for token in (getattr(tokenizer, "added_tokens_decoder", None) or {}).values():
        if getattr(token, "special", False):
            yield token
